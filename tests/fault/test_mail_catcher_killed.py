"""The mail catcher under SIGKILL: tests count what it took, so it may lose no mail that it has acknowledged."""

import smtplib
import threading
from pathlib import Path

from devstack.ports import Ports
from devstack.stack import Stack
from tests.stack_folder import stack_folder
from tests.system.vocabulary import dice, eventually

KILLS = 5
BODY = ("x" * 900 + "\r\n") * 4000
"""Large enough for its writing to take a while."""


class Sender:
    """Sends mails one after the other until it is told to stop, and remembers those that were acknowledged."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self.acknowledged: list[int] = []
        self.sent = 0

    def __enter__(self) -> "Sender":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join(30)

    def _work(self) -> None:
        while not self._stopped.is_set():
            try:
                with smtplib.SMTP("127.0.0.1", self._port, timeout=5) as door:
                    while not self._stopped.is_set():
                        self._send(door)
            except (OSError, smtplib.SMTPException):
                self._stopped.wait(0.01)

    def _send(self, door: smtplib.SMTP) -> None:
        self.sent += 1
        number = self.sent
        door.sendmail("a@b.example", [f"{number}@c.example"], f"Subject: {number}\r\n\r\n{BODY}end\r\n")
        self.acknowledged.append(number)


def wait_for_more(sender: Sender, count: int) -> None:
    goal = len(sender.acknowledged) + count
    eventually(lambda: len(sender.acknowledged) >= goal, 30)


def unfinished(folder: Path) -> set[Path]:
    """The mails that have not arrived, or not yet whole."""
    return {*(folder / "tmp").iterdir(), *(it for it in (folder / "new").iterdir() if it.stat().st_size < len(BODY))}


def test_no_acknowledged_mail_is_lost_and_none_is_half_there() -> None:
    chance = dice("mail catcher")
    with stack_folder() as folder, Stack(folder, Ports.free(), parts={"mail"}) as stack:
        catcher = stack.part("mail")
        with Sender(int(stack.service_env()["SMTP_PORT"])) as sender:
            for _ in range(KILLS):
                wait_for_more(sender, chance.randrange(1, 5))
                left = unfinished(stack.mails.folder)
                # Without a pause: a mail is written in milliseconds. The test's own time limit ends it.
                while unfinished(stack.mails.folder) <= left:
                    pass
                catcher.kill()
                catcher.start()
            wait_for_more(sender, 1)
        mails = stack.mails.all()
    kept = [int(mail.subject) for mail in mails]
    assert set(sender.acknowledged) <= set(kept)
    assert len(kept) == len(set(kept))
    # At each kill, one mail may have been kept without an answer.
    assert len(kept) <= len(sender.acknowledged) + KILLS
    assert all(mail.text.endswith("end\n") for mail in mails)
