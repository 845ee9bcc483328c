"""The stand-ins for what is not ours, as parts of a stack: what user_service.py, order_service.py and mail.py
run."""

import smtplib
import sys
from pathlib import Path

from devstack import mail
from devstack.control import Control
from devstack.part import Program
from devstack.ports import LOOPBACK, free_port
from devstack.service import is_serving, python_path

SILENT = ("gone", "hanging")
"""The behaviours of one that does as it is told and answers nobody."""


class StandIn:
    """A program on a port that is chosen now, and the orders that it takes."""

    def __init__(self, name: str, run_dir: Path) -> None:
        self.name = name
        self.port = free_port()
        self.control = Control(run_dir, name)
        self._run_dir = run_dir

    def program(self) -> Program:
        """It as a part of the stack; it is ready when it answers, and where it is told not to at once."""
        command = [sys.executable, "-m", "devstack", self.name, "--host", LOOPBACK, "--port", str(self.port)]
        env = {"PYTHONPATH": python_path(None), "RUN_DIR": str(self._run_dir)}
        return Program(self.name, command, env=env, is_ready=lambda: self._is_told_to_be_silent() or self.answers())

    def answers(self) -> bool:
        """Whether it does what a client needs of it."""
        raise NotImplementedError

    def _is_told_to_be_silent(self) -> bool:
        return self.control.orders().get("behaviour") in SILENT


class GrpcServiceStandIn(StandIn):
    """The User Service or the Order Service of a stack."""

    @property
    def target(self) -> str:
        """HOST:PORT for clients."""
        return f"{LOOPBACK}:{self.port}"

    def answers(self) -> bool:
        """Whether it serves."""
        return is_serving(self.port)


class MailStandIn(StandIn):
    """The mail server of a stack."""

    def __init__(self, run_dir: Path) -> None:
        super().__init__(mail.NAME, run_dir)
        self.mails = mail.Mails(run_dir)

    def answers(self) -> bool:
        """Whether it takes mail."""
        try:
            with smtplib.SMTP(LOOPBACK, self.port, timeout=1):
                return True
        except (OSError, smtplib.SMTPException):
            return False
