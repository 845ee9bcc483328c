"""Callers at work while something is killed, and the account of what they were promised."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.system.doors import OK, Answer, Caller, Door, Json
from tests.system.stage import Stage
from tests.system.topic import Record, first_deliveries
from tests.system.vocabulary import as_customer, eventually

LONGEST_SECONDS = 60.0
RETRY_PAUSE_SECONDS = 0.05
# What callers wait after a call that went well: they share the machine with what is started again meanwhile, and every
# ticket is work for the relay, for Kafka and for whoever looks at the end whether all are there.
PAUSE_SECONDS = 0.03
# More than a worker has connections, also where two workers share them.
AT_ONCE = 20


class Ledger:
    """Every answer that callers got: what they may rely on, and how often which code came. Any thread may write."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.codes: Counter[int] = Counter()
        self.tickets: list[dict[str, Any]] = []
        self.changes: list[tuple[str, dict[str, Any]]] = []
        self.seconds: list[float] = []

    def call(self, door: Door, call: str, caller: Caller, **fields: Json) -> Answer:
        """The answer, noted down."""
        began = time.monotonic()
        answer = door.call(call, caller, **fields)
        with self._lock:
            self.seconds.append(time.monotonic() - began)
            self.codes[answer.code] += 1
            if answer.code == OK and call == "CreateTicket":
                self.tickets.append(answer.payload)
            elif answer.code == OK:
                self.changes.append((call, answer.payload))
        return answer

    def create(self, door: Door, owner: Caller, **fields: Json) -> Answer:
        """A new ticket, or why there is none."""
        return self.call(door, "CreateTicket", owner, subject="Cold soup", description="It was hot.", **fields)

    @property
    def ticket_ids(self) -> set[str]:
        """The ids of the acknowledged tickets."""
        with self._lock:
            return {str(ticket["id"]) for ticket in self.tickets}


@dataclass
class Shift:
    """Callers at work in their own threads."""

    ledger: Ledger = field(default_factory=Ledger)
    enough: threading.Event = field(default_factory=threading.Event)
    works: list[Future[None]] = field(default_factory=list)

    def wait_for(self, code: int, count: int = 1, within: float = 15.0) -> None:
        """Waits until so many more calls have been answered with that code."""
        target = self.ledger.codes[code] + count
        eventually(lambda: self.ledger.codes[code] >= target, within)

    def finish(self) -> Ledger:
        """The ledger, when every caller has done its part; raises what went wrong with any of them."""
        done, late = wait(self.works, LONGEST_SECONDS)
        assert not late, "the callers did not come to an end"
        for work in done:
            work.result()
        return self.ledger


Work = Callable[[int, Shift], None]
"""What a caller does, given its number."""


@contextmanager
def at_work(callers: int, work: Work) -> Iterator[Shift]:
    """Runs `work(number, shift)` for each caller meanwhile; told that it is enough when the block is left."""
    with ThreadPoolExecutor(callers) as pool:
        shift = Shift()
        shift.works += [pool.submit(work, number, shift) for number in range(callers)]
        try:
            yield shift
        finally:
            shift.enough.set()


def until_enough(doors: Sequence[Door]) -> Work:
    """Work: creates tickets until told that it is enough, at one door each, pausing a little after each.

    Every ticket has another owner: one customer alone would soon be slowed down by the gateway.
    """

    def work(number: int, shift: Shift) -> None:
        door = doors[number % len(doors)]
        while not shift.enough.is_set():
            is_done = shift.ledger.create(door, as_customer()).code == OK
            shift.enough.wait(PAUSE_SECONDS if is_done else RETRY_PAUSE_SECONDS)

    return work


def takes_many_at_once(door: Door) -> bool:
    """Whether many creates at once all go well: a worker has several connections to PostgreSQL, each maybe dead."""
    ledger = Ledger()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = pool.map(lambda _: ledger.create(door, as_customer()), range(AT_ONCE))
        return all(answer.code == OK for answer in answers)


def all_are_published(stage: Stage, within: float = 30.0) -> None:
    """Waits until every event in the database is marked published."""
    unsent = "SELECT count(*) FROM admin_service.ticket_events WHERE published_at IS NULL AND NOT is_internal"
    eventually(lambda: stage.query(unsent) == [(0,)], within)


def deliveries_of(stage: Stage, ledger: Ledger) -> dict[str, list[dict[str, Any]]]:
    """What Kafka holds of the ledger's tickets, after the checks that every ledger must stand.

    The events of a ticket are in order and without gap, each change that was acknowledged is among them, and they are
    those of the database, no more and no fewer.
    """
    ids = ledger.ticket_ids
    records = [record for record in stage.topic.records() if record.key.decode() in ids]
    arrived = first_deliveries(records)
    assert arrived.keys() == ids
    assert {event["event_id"] for events in arrived.values() for event in events} == event_ids_of(stage, ids)
    for call, payload in ledger.changes:
        assert is_told(call, payload, arrived[payload.get("ticket_id", payload["id"])]), (call, payload)
    print(f"{len(ids)} tickets, {len(records)} records, {duplicates_in(records)} of them duplicates")  # noqa: T201
    return arrived


def event_ids_of(stage: Stage, ticket_ids: set[str]) -> set[str]:
    """The events of these tickets as the database has them."""
    rows = stage.query(
        "SELECT id FROM admin_service.ticket_events WHERE ticket_id = ANY(%s::uuid[]) AND NOT is_internal",
        list(ticket_ids),
    )
    return {str(row[0]) for row in rows}


def is_told(call: str, payload: dict[str, Any], events: list[dict[str, Any]]) -> bool:
    """Whether the events have the acknowledged change among them."""
    if call == "AddComment":
        return any(event.get("comment_id") == payload["id"] for event in events)
    return any(event["ticket"]["version"] == payload["version"] for event in events)


def duplicates_in(records: list[Record]) -> int:
    """How many records repeat an earlier one."""
    return len(records) - len({record.headers["ce_id"] for record in records})
