"""Two relays: both work, and whoever dies or stands still has its tickets taken over by the other one."""

import signal
import time
from collections.abc import Callable

import psutil
import psycopg

from server.db.schema import SHARDS
from server.workers.session import SILENCE_MS
from server.workers.shards import SHARD_LOCKS
from tests.fault.load import Ledger, Shift, Work, all_are_published, at_work, deliveries_of, until_enough
from tests.fault.relay_process import Relay, have_shared, relay_of, second_relay
from tests.frozen import frozen
from tests.system.doors import OK
from tests.system.stage import Stage
from tests.system.vocabulary import as_customer, eventually, open_ticket, some_agent

CALLERS = 4
CHANGES = 1000
# What a busy machine may add to the second after which a free shard is noticed.
TAKEOVER_SECONDS = 4.0


def seconds_until(condition: Callable[[], bool], within: float) -> float:
    """How long it took to come true."""
    began = time.monotonic()
    eventually(condition, within)
    return time.monotonic() - began


def has_all(relay: Relay) -> bool:
    return relay.shards() == SHARDS


def test_both_work_and_a_dead_ones_tickets_are_taken_over_within_seconds(stage: Stage) -> None:
    own, part = relay_of(stage), stage.stack.part("relay")
    with second_relay(stage) as second, at_work(2, until_enough(stage.doors)) as shift:
        joining = seconds_until(lambda: have_shared(own, second), 10)
        before = own.published(), second.published()
        shift.wait_for(OK, 100)
        eventually(lambda: own.published() > before[0] and second.published() > before[1])
        # Counted one after the other, so that the two differ for a moment.
        published = second.published()
        eventually(lambda: second.metric("publish_seconds_count") >= published > 0)
        part.kill()
        after_death = seconds_until(lambda: has_all(second), TAKEOVER_SECONDS)
        part.start()
        eventually(lambda: have_shared(own, second))

        with frozen([psutil.Process(second.process.pid)]):
            standstill = seconds_until(lambda: has_all(own), SILENCE_MS / 1000 + TAKEOVER_SECONDS)
            shift.wait_for(OK, 50)
        # It finds its session ended, and begins anew.
        eventually(lambda: have_shared(own, second))
        second.process.send_signal(signal.SIGTERM)
        farewell = seconds_until(lambda: has_all(own), TAKEOVER_SECONDS)
        shift.enough.set()
        ledger = shift.finish()

    print(  # noqa: T201
        f"shared after {joining:.1f} s; taken over {after_death:.1f} s after a SIGKILL, {standstill:.1f} s after a "
        f"SIGSTOP, {farewell:.1f} s after a SIGTERM"
    )
    all_are_published(stage)
    deliveries_of(stage, ledger)


def comments_on_one_ticket(stage: Stage, ticket: str) -> Work:
    """Work: a share of the changes, each a comment by the next agent."""

    def work(number: int, shift: Shift) -> None:
        door = stage.doors[1 + number % 2]
        for _ in range(CHANGES // CALLERS):
            answer = shift.ledger.call(door, "AddComment", some_agent(), ticket_id=ticket, comment="Still looking.")
            assert answer.code == OK

    return work


def test_a_thousand_changes_of_one_ticket_arrive_in_order_though_its_relay_is_killed_on_the_way(stage: Stage) -> None:
    first = Ledger()
    ticket = first.create(stage.own_port, as_customer()).resource["id"]
    shard, part = int(ticket[-1], 16) % SHARDS, stage.stack.part("relay")
    with second_relay(stage) as second:
        eventually(lambda: have_shared(relay_of(stage), second))
        with at_work(CALLERS, comments_on_one_ticket(stage, ticket)) as shift:
            shift.wait_for(OK, CHANGES // 3)
            if holds(stage, second.process.pid, shard):
                second.process.kill()
            else:
                part.kill()
                part.start()
            ledger = shift.finish()
        all_are_published(stage)
    ledger.tickets += first.tickets
    assert len(deliveries_of(stage, ledger)[ticket]) == CHANGES + 1


def holds(stage: Stage, pid: int, shard: int) -> bool:
    """Whether it is that process that holds the shard, as PostgreSQL knows its clients."""
    with psycopg.connect(stage.stack.dsn) as connection:
        row = connection.execute(
            "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE locktype = 'advisory' "
            "AND classid = %s AND objid = %s AND application_name = %s",
            [SHARD_LOCKS, shard, f"nibble-relay-{pid}"],
        ).fetchone()
    assert row is not None
    return bool(row[0])


def test_a_relay_that_others_leave_no_shard_goes_on_telling_the_backlog(stage: Stage) -> None:
    all_are_published(stage)
    part = stage.stack.part("relay")
    part.kill()
    try:
        with psycopg.connect(stage.stack.dsn, autocommit=True) as other:
            for shard in range(SHARDS):
                other.execute("SELECT pg_advisory_lock(%s, %s)", [SHARD_LOCKS, shard])
            with second_relay(stage) as second:
                assert second.metric("backlog_events") == 0
                open_ticket(stage.grpc, as_customer())
                eventually(lambda: second.metric("backlog_events") == 1, 15)
                assert second.shards() == second.published() == 0
    finally:
        part.start()
    all_are_published(stage)
