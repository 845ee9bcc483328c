"""The process of the inbox killed, stopped or cut off from its database: clients come again and miss nothing."""

import queue
import threading
import time
from contextlib import suppress
from functools import partial

import httpx
import psutil
import psycopg

from tests.frozen import frozen, whole
from tests.system.doors import OK, Caller
from tests.system.inbox import arrive, arrive_by, ids_of, listening, unread_of
from tests.system.stage import Stage
from tests.system.vocabulary import as_customer, dice, eventually

PART = "notification-api"


def serves(stage: Stage) -> bool:
    """Whether the gateway has found the process again."""
    return stage.rest.call("GetUnreadCount", as_customer()).code == OK


class Client:
    """As the proto's comment asks: it comes again with the last id, whenever a stream ends or breaks."""

    def __init__(self, stage: Stage, caller: Caller, last: str) -> None:
        self.seen: list[str] = []
        self.streams = 0
        self.enough = threading.Event()
        self._stage = stage
        self._caller = caller
        self._first = last
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self.enough.set()
        self._thread.join(20)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        while not self.enough.is_set():
            # Refused, or broken off: pytest's own words for what a listener did not get.
            with suppress(httpx.HTTPError, AssertionError):
                self._listen()
            time.sleep(0.1)

    def _listen(self) -> None:
        last = self.seen[-1] if self.seen else self._first
        with listening(self._stage, self._caller, after=last) as stream:
            self.streams += 1
            while not self.enough.is_set():
                with suppress(queue.Empty):
                    self.seen += ids_of([stream.next(0.5)])


def test_a_client_misses_and_repeats_nothing_while_the_process_is_killed_again_and_again(stage: Stage) -> None:
    chance, mine = dice("kills"), as_customer()
    part = stage.stack.part(PART)
    (first,) = arrive(stage, mine)
    client = Client(stage, mine, first)
    eventually(lambda: client.streams == 1)
    sent = []
    with psycopg.connect(stage.stack.dsn, autocommit=True) as connection:
        for kill in range(4):
            for _ in range(chance.randrange(3, 10)):
                time.sleep(chance.uniform(0, 0.2))
                sent.append(arrive_by(connection, mine))
            part.kill()
            sent += [arrive_by(connection, mine) for _ in range(3)]
            part.start()
            eventually(lambda: client.streams >= kill + 2, 20)  # noqa: B023
        sent.append(arrive_by(connection, mine))
    eventually(lambda: len(client.seen) >= len(sent), 10)
    client.stop()
    assert client.seen == sent
    assert unread_of(stage, mine) == len(sent) + 1


def test_a_process_that_is_asked_to_stop_ends_its_streams_at_once_and_without_an_error(stage: Stage) -> None:
    part, mine = stage.stack.part(PART), as_customer()
    with listening(stage, mine) as stream:
        stream.next()
        began = time.monotonic()
        assert part.pid
        process = psutil.Process(part.pid)
        process.terminate()
        assert stream.end(15) == []
        took = time.monotonic() - began
        process.wait(15)
    # SHUTDOWN_DELAY_SECONDS, in which the gateway learns of it, and no more.
    assert took < 3 + 2


def test_without_the_process_its_calls_are_unavailable_and_tickets_go_on(stage: Stage) -> None:
    part, mine = stage.stack.part(PART), as_customer()
    part.kill()
    for door in (stage.rest, stage.grpc):
        for call in ("ListNotifications", "StreamNotifications"):
            eventually(lambda: door.call(call, mine).reason == "DEPENDENCY_UNAVAILABLE")  # noqa: B023
            assert door.call(call, mine).retry_delay
        assert door.call("ListMyTickets", mine).code == OK
    assert stage.rest.http.get("/healthz").status_code == 200
    part.start()
    eventually(partial(serves, stage))


def test_a_stream_outlasts_a_process_that_stands_still_and_who_comes_meanwhile_is_told(stage: Stage) -> None:
    part, mine = stage.stack.part(PART), as_customer()
    assert part.pid
    with listening(stage, mine) as stream:
        stream.next()
        with frozen(whole(psutil.Process(part.pid))):
            eventually(lambda: stage.rest.call("GetUnreadCount", mine).reason == "DEPENDENCY_UNAVAILABLE", 20)
            assert stage.rest.call("StreamNotifications", mine).reason == "DEPENDENCY_UNAVAILABLE"
        (new,) = arrive(stage, mine)
        assert stream.next_id(20) == new


def test_a_stream_outlasts_a_restart_of_postgresql(stage: Stage) -> None:
    mine = as_customer()
    postgres = stage.stack.part("postgres")
    with listening(stage, mine) as stream:
        stream.next()
        postgres.kill()
        postgres.start()
        (new,) = arrive(stage, mine)
        assert stream.next_id(20) == new
