"""Eight sweepers and four supervisors give away the same 2,000 tickets: nobody gets more than they can bear.

The history is replayed in the order in which the changes were committed. PostgreSQL keeps no such order, so the test
has each row of history numbered at the end of its transaction, while the assignee's lock is still held: of two
assignments to the same person the one that was committed first has the lower number. There an assignment also takes a
moment, as on a slow disk: without the lock others would come between the look at the assignee's tickets and the commit.
"""

import asyncio
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from random import Random
from typing import Any, NamedTuple
from uuid import UUID

import psycopg
import pytest

from tests.fault.load import Shift, all_are_published, at_work
from tests.fault.sweeper_process import sweepers
from tests.integration.vocabulary import Desk
from tests.integration.vocabulary import as_supervisor as supervisor_at
from tests.integration.vocabulary import assign as assign_at
from tests.integration.vocabulary import open_ticket as open_at
from tests.system.doors import OK, Answer, Caller
from tests.system.staffing import empty_roster, hire, set_off
from tests.system.stage import Stage
from tests.system.topic import first_deliveries
from tests.system.vocabulary import as_agent, as_supervisor, dice, eventually

SWEEPERS, ASSIGNERS = 8, 4
TICKETS, LEAVERS, HEIRS = 2_000, 8, 60
# Fewer than are left when the supervisors have resolved some, so that all heirs are full in the end.
BEARABLE = 1_600
ACTS = 150
FAILED_PRECONDITION = 9
AT_ONCE = 16
SETTINGS = {"REASSIGN_AWAY_AFTER_SECONDS": "1"}

NUMBER_COMMITS = """
    CREATE TABLE public.committed (number bigserial PRIMARY KEY, event_id uuid NOT NULL);
    CREATE FUNCTION public.number_commit() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN
            IF NEW.event_type = ''ticket_assigned'' THEN PERFORM pg_sleep(0.003); END IF;
            INSERT INTO public.committed (event_id) VALUES (NEW.id);
            RETURN NULL;
        END';
    CREATE CONSTRAINT TRIGGER number_commit AFTER INSERT ON admin_service.ticket_events
        DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION public.number_commit()
"""
NUMBER_NO_MORE = """
    DROP TRIGGER number_commit ON admin_service.ticket_events;
    DROP FUNCTION public.number_commit;
    DROP TABLE public.committed
"""
LOADS = b"""
    SELECT assigned_to, count(*) FROM admin_service.support_tickets
    WHERE assigned_to = ANY (%s) AND status IN ('open', 'in_progress') GROUP BY assigned_to
"""
IN_ORDER_OF_COMMIT = """
    SELECT ticket_id, event_type, assigned_to, to_status, reason
    FROM admin_service.ticket_events JOIN public.committed ON event_id = id
    WHERE ticket_id = ANY (%s::uuid[]) ORDER BY number
"""
NUMBERS = """
    SELECT ticket_id, array_agg(position ORDER BY position), array_agg(sequence ORDER BY position)
    FROM admin_service.ticket_events WHERE ticket_id = ANY (%s::uuid[]) GROUP BY ticket_id
"""


class Office(NamedTuple):
    """Who leaves, who takes over, how much each of these can bear, and the tickets that are left."""

    leavers: list[Caller]
    heirs: list[Caller]
    capacity: dict[UUID, int]
    tickets: list[str]


@pytest.fixture
def numbered(stage: Stage) -> Iterator[None]:
    """Meanwhile each row of history is numbered as it is committed."""
    with psycopg.connect(stage.stack.dsn, autocommit=True) as connection:
        connection.execute(NUMBER_COMMITS.encode())
        yield
        connection.execute(NUMBER_NO_MORE.encode())
    empty_roster(stage)


def open_office(stage: Stage) -> Office:
    """All tickets are with those who will leave; the others could not bear quite all of them."""
    chance = dice("the office")
    empty_roster(stage)
    leavers, heirs = [as_agent() for _ in range(LEAVERS)], [as_agent() for _ in range(HEIRS)]
    for agent in leavers:
        hire(stage.own_port, agent, capacity=TICKETS // LEAVERS)
    capacity = {UUID(agent.id): share for agent, share in zip(heirs, capacities(chance), strict=True)}
    for agent in heirs:
        hire(stage.own_port, agent, capacity=capacity[UUID(agent.id)])
    return Office(leavers, heirs, capacity, asyncio.run(_fill(stage, [UUID(agent.id) for agent in leavers])))


def capacities(chance: Random) -> list[int]:
    """What each of the heirs can bear: more or less, and as much together in every run."""
    drawn = [chance.randint(5, 55) for _ in range(HEIRS)]
    return [max(1, BEARABLE * it // sum(drawn)) for it in drawn]


async def _fill(stage: Stage, leavers: Sequence[UUID]) -> list[str]:
    # One supervisor: whoever works on a ticket is staff, and all staff are told of every new one.
    boss = supervisor_at()
    async with Desk.at(stage.stack.dsn) as desk:
        desk.clock.now = datetime.now(UTC)
        gate = asyncio.Semaphore(AT_ONCE)

        async def one(number: int) -> str:
            async with gate:
                ticket = await assign_at(desk, await open_at(desk), leavers[number % len(leavers)], boss)
                return str(ticket.id)

        return await asyncio.gather(*(one(number) for number in range(TICKETS)))


def nothing_can_be_moved(stage: Stage, office: Office) -> bool:
    """Whether whoever left has no tickets, or whoever is there can bear no more."""
    leavers = [UUID(agent.id) for agent in office.leavers]
    loads: dict[UUID, int] = dict(stage.query(LOADS.decode(), [*leavers, *office.capacity]))
    left = sum(loads.get(agent, 0) for agent in leavers)
    return not left or all(loads.get(agent, 0) >= capacity for agent, capacity in office.capacity.items())


class Observer:
    """Looks at everybody's tickets again and again, each time at one moment of the database."""

    def __init__(self, stage: Stage, capacity: dict[UUID, int]) -> None:
        self._dsn = stage.stack.dsn
        self._capacity = capacity
        self.looks = 0
        self.full: set[UUID] = set()
        self.too_many: list[tuple[UUID, int]] = []

    @contextmanager
    def watching(self) -> Iterator[None]:
        """It looks until the block is left."""
        left = threading.Event()
        thread = threading.Thread(target=self._watch, args=[left])
        thread.start()
        try:
            yield
        finally:
            left.set()
            thread.join()

    def _watch(self, left: threading.Event) -> None:
        with psycopg.connect(self._dsn, autocommit=True) as connection:
            while not left.wait(0.01):
                for agent, load in connection.execute(LOADS, [list(self._capacity)]).fetchall():
                    self._note(agent, load)
                self.looks += 1

    def _note(self, agent: UUID, load: int) -> None:
        if load >= self._capacity[agent]:
            self.full.add(agent)
        if load > self._capacity[agent]:
            self.too_many.append((agent, load))


class Supervisors:
    """Give tickets away, singly and many at once, and resolve some."""

    def __init__(self, stage: Stage, office: Office) -> None:
        self._door = stage.own_port
        self._office = office
        self.told: Counter[str] = Counter()
        """How often a call, or a ticket within one, came to what."""

    def work(self, number: int, _shift: Shift) -> None:
        """One of them, by number."""
        chance, boss = dice(f"supervisor {number}"), as_supervisor()
        for _ in range(ACTS):
            answer = self._act(chance, boss)
            assert answer.code in {OK, FAILED_PRECONDITION}, answer
            results = answer.payload.get("results", [{"reason": answer.reason}])
            self.told.update(result.get("reason") or "OK" for result in results)

    def _act(self, chance: Random, boss: Caller) -> Answer:
        kind, heir, some = chance.random(), chance.choice(self._office.heirs).id, chance.sample(self._office.tickets, 5)
        if kind < 0.6:
            return self._door.call("AssignTicket", boss, ticket_id=some[0], assigned_to=heir)
        if kind < 0.8:
            return self._door.call("ReassignTickets", boss, ticket_ids=some)
        if kind < 0.85:
            leaver = chance.choice(self._office.leavers).id
            return self._door.call("ReassignTickets", boss, from_agent=leaver, assigned_to=heir)
        return self._door.call("UpdateTicketStatus", boss, ticket_id=some[0], status="resolved")


def replay(office: Office, changes: Sequence[tuple[Any, ...]]) -> tuple[Counter[UUID], Counter[UUID]]:
    """Everybody's tickets after the last change, and how often a sweep has moved which ticket.

    AssertionError when somebody had too many after any of them.
    """
    holder: dict[UUID, UUID] = {}
    load: Counter[UUID] = Counter()
    swept: Counter[UUID] = Counter()
    for ticket, kind, assigned_to, to_status, reason in changes:
        if kind == "ticket_assigned":
            if ticket in holder:
                load[holder[ticket]] -= 1
            holder[ticket] = assigned_to
            load[assigned_to] += 1
            assert load[assigned_to] <= office.capacity.get(assigned_to, TICKETS), (ticket, assigned_to)
            swept[ticket] += reason == "assignee_away"
        elif to_status == "resolved":
            load[holder.pop(ticket)] -= 1
    return load, swept


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("numbered")
def test_nobody_is_over_capacity_and_no_ticket_is_swept_twice_amid_eight_sweepers_and_four_supervisors(
    stage: Stage,
) -> None:
    office = open_office(stage)
    observer, supervisors = Observer(stage, office.capacity), Supervisors(stage, office)
    with sweepers(stage, SWEEPERS, **SETTINGS) as processes:
        for agent in office.leavers:
            set_off(stage.own_port, agent)
        with observer.watching(), at_work(ASSIGNERS, supervisors.work) as shift:
            shift.finish()
            eventually(lambda: nothing_can_be_moved(stage, office), 90)
        changes = stage.query(IN_ORDER_OF_COMMIT, office.tickets)
        load, swept = replay(office, changes)
        # What a round has done is counted when it has ended.
        eventually(lambda: sum(process.done("reassign_away") for process in processes) == swept.total())
        shares = [process.done("reassign_away") for process in processes]

    print(  # noqa: T201
        f"{swept.total()} tickets swept, {shares} by each sweeper; {len(changes)} rows of history; {observer.looks} "
        f"looks; {len(observer.full)} of {HEIRS} were full; what the supervisors were told: {dict(supervisors.told)}"
    )
    assert observer.too_many == []
    assert observer.looks > 50
    assert len(observer.full) > HEIRS / 2
    assert supervisors.told["AGENT_AT_CAPACITY"] > 0
    assert max(swept.values()) == 1
    assert sum(share > 0 for share in shares) > SWEEPERS / 2
    ids = list(office.capacity)
    assert dict(stage.query(LOADS.decode(), ids)) == {agent: load[agent] for agent in ids if load[agent]}
    every_change_is_in_history_and_in_kafka(stage, office.tickets)


def every_change_is_in_history_and_in_kafka(stage: Stage, tickets: Sequence[str]) -> None:
    """Positions and sequences are 1, 2, 3, … for each ticket, and Kafka has just these events."""
    all_are_published(stage)
    numbers = {str(ticket): (positions, sequences) for ticket, positions, sequences in stage.query(NUMBERS, tickets)}
    assert numbers.keys() == set(tickets)
    for positions, sequences in numbers.values():
        assert positions == sequences == list(range(1, len(positions) + 1))
    records = [record for record in stage.topic.records() if record.key.decode() in numbers]
    arrived = first_deliveries(records)
    assert {ticket: len(events) for ticket, events in arrived.items()} == {
        ticket: len(positions) for ticket, (positions, _) in numbers.items()
    }
