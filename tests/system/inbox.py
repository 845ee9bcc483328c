"""The words of the inbox's tests: what arrives in it, and streams of what arrives."""

import queue
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from uuid import uuid4

import httpx
import psycopg
from uuid_utils.compat import uuid7

from tests.integration.inbox import ARRIVAL
from tests.system.doors import OK, Caller, answer_in, events_in
from tests.system.stage import Stage

STREAM = "/api/v1/notifications/stream"
LATE_SECONDS = 2.0
"""Within which what arrives is told."""


def arrive(stage: Stage, *recipients: Caller) -> list[str]:
    """A new notification for each, as the service that tells people of events writes it; their ids."""
    with psycopg.connect(stage.stack.dsn, autocommit=True) as connection:
        return [arrive_by(connection, recipient) for recipient in recipients]


def arrive_by(connection: psycopg.Connection[Any], recipient: Caller) -> str:
    """The same over a connection that is open already."""
    ids = {"id": uuid7(), **{name: uuid4() for name in ("change", "ticket", "actor")}}
    connection.execute(ARRIVAL, {"recipient": recipient.id, "in_inbox": True, "email": None, **ids})
    return str(ids["id"])


BULK = """
    INSERT INTO notification_service.notifications (id, recipient_id, number, change_id, event_id, ticket_id, type,
        subject, priority, status, actor_id, actor_role, occurred_at, created_at, in_inbox)
    SELECT gen_random_uuid(), user_id, last_number + number, gen_random_uuid(), gen_random_uuid(), gen_random_uuid(),
        'ticket_created', repeat(%(letter)s, 200), 'low', 'open', gen_random_uuid(), 'customer', now(), now(), true
    FROM notification_service.recipients, generate_series(1, %(count)s) AS number
    WHERE user_id = %(recipient)s
"""
COUNT_BULK = """
    UPDATE notification_service.recipients
    SET last_number = last_number + %(count)s, unread_count = unread_count + %(count)s WHERE user_id = %(recipient)s
"""


def arrive_in_bulk(stage: Stage, recipient: Caller, count: int) -> None:
    """So many long notifications at once, for somebody who has been told something before."""
    values = {"recipient": recipient.id, "count": count, "letter": "\U0001f372"}
    with psycopg.connect(stage.stack.dsn) as connection:
        connection.execute(BULK, values)
        connection.execute(COUNT_BULK, values)


class Listener:
    """A client that reads one stream over REST, in a thread of its own."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self._updates: queue.Queue[dict[str, Any] | Exception | None] = queue.Queue()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def next(self, within: float = LATE_SECONDS) -> dict[str, Any]:
        """The next message; AssertionError where none comes in time, or the stream has ended."""
        update = self._updates.get(timeout=within)
        assert isinstance(update, dict), update
        return update

    def next_id(self, within: float = LATE_SECONDS) -> str:
        """The id of the next notification; what tells the count alone is passed over."""
        while "notification" not in (update := self.next(within)):
            pass
        return str(update["notification"]["id"])

    def end(self, within: float) -> list[dict[str, Any]]:
        """What comes until the stream ends as it should, within so many seconds."""
        deadline = time.monotonic() + within
        updates = []
        while (update := self._updates.get(timeout=deadline - time.monotonic())) is not None:
            assert isinstance(update, dict), update
            updates.append(update)
        return updates

    def _read(self) -> None:
        try:
            for update in events_in(self.response):
                self._updates.put(update)
            self._updates.put(None)
        except (httpx.HTTPError, httpx.StreamError, AssertionError) as error:
            self._updates.put(error)


@contextmanager
def listening(stage: Stage, caller: Caller, after: str | None = None) -> Iterator[Listener]:
    """A stream of the caller's notifications through the gateway."""
    headers = {"authorization": f"Bearer {stage.mint(caller)}"}
    params = {} if after is None else {"after_id": after}
    # A client of its own: the doors' pools are not made for connections that stay busy. It loads no certificates, which
    # takes longer than all the rest.
    with (
        httpx.Client(base_url=stage.stack.gateway_url, timeout=60, trust_env=False, verify=False) as client,  # noqa: S501
        client.stream("GET", STREAM, headers=headers, params=params) as response,
    ):
        if response.status_code != 200:
            response.read()
            raise AssertionError(answer_in(response))
        try:
            yield Listener(response)
        finally:
            # The other end would not hear of a close before the thread that reads has read something more.
            with suppress(OSError):
                response.extensions["network_stream"].get_extra_info("socket").shutdown(socket.SHUT_RDWR)


def ids_of(updates: list[dict[str, Any]]) -> list[str]:
    """The notifications among those messages."""
    return [update["notification"]["id"] for update in updates if "notification" in update]


def unread_of(stage: Stage, caller: Caller) -> int:
    """How many of the caller's notifications are unread, as the service says."""
    answer = stage.rest.call("GetUnreadCount", caller)
    assert answer.code == OK, answer
    return int(answer.payload["unread_count"])
