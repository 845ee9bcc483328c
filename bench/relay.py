"""How soon an event is in Kafka after its commit while the API is saturated, and how fast a backlog is worked off."""

import itertools
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psycopg
from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType

from bench.cores import keep_apart, processes
from devstack.part import CHECKOUT
from devstack.ports import Ports
from devstack.stack import Stack
from server.workers.topics import TICKET_EVENTS

SECONDS = 12.0
WARM_UP_SECONDS = 3.0
CALLERS = 32
BACKLOG = 20_000
TARGET_SECONDS = 0.2
PARTS = {"postgres", "kafka", "migrate", "api", "relay"}
# When the transaction of each creation was committed, as PostgreSQL noted it; a ticket that was only created is that
# transaction's own row. In seconds since 1970.
COMMITS = """
    SELECT e.id::text, extract(epoch FROM pg_xact_commit_timestamp(t.xmin))::float8
    FROM admin_service.ticket_events e JOIN admin_service.support_tickets t ON t.id = e.ticket_id
    WHERE e.event_type = 'ticket_created' AND e.occurred_at >= %s
"""
NOW = "SELECT clock_timestamp()"
UNSENT = "SELECT count(*) FROM admin_service.ticket_events WHERE published_at IS NULL"
# Five events of each ticket.
FILL = """
    WITH made AS (
        INSERT INTO admin_service.support_tickets (
            id, user_id, subject, description, status, priority, created_at, updated_at, version, event_count,
            history_count, unattended_since
        )
        SELECT gen_random_uuid(), gen_random_uuid(), 'Backlog', 'x', 'open', 'low', now(), now(), 1, 5, 5, now()
        FROM generate_series(1, %s)
        RETURNING id
    )
    INSERT INTO admin_service.ticket_events (
        id, ticket_id, position, sequence, change_id, event_type, occurred_at, actor_id, actor_role, is_internal,
        comment_id, author_role, ticket
    )
    SELECT gen_random_uuid(), id, n, n, gen_random_uuid(), 'ticket_commented', now(), id, 'customer', false, id,
        'customer', jsonb_build_object(
            'id', id, 'user_id', id, 'subject', 'Backlog', 'status', 'open', 'priority', 'low', 'created_at', now(),
            'updated_at', now(), 'version', 1
        )
    FROM made, generate_series(1, 5) n
"""
SPAN = """
    SELECT extract(epoch FROM max(published_at) - min(published_at))::float8
    FROM admin_service.ticket_events WHERE event_type = 'ticket_commented'
"""


def bench_relay() -> bool:
    """Print the figures; False where events take longer to Kafka than they should.

    Measured twice: with all processes and their callers on all cores, where what is measured waits for its turn as much
    as for its work; and with the API and its callers on one core, which they saturate, and all others on the rest. The
    second is what the target is held against: no deployment lets a saturated API take the relay's processor.
    """
    with TemporaryDirectory(prefix="nibble-") as folder, Stack(Path(folder), Ports.free(), parts=PARTS) as stack:
        _note_times(stack)
        _saturate(stack, WARM_UP_SECONDS)
        _measure(stack, "all on the same cores")
        _keep_apart(stack)
        p99 = _measure(stack, "the API and its callers on a core of their own")
        rate = _work_off_a_backlog(stack)
    in_time = p99 < TARGET_SECONDS
    print(f"relay: target {TARGET_SECONDS * 1000:.0f} ms for p99, the API apart: {'met' if in_time else 'MISSED'}")
    print(f"relay: a backlog of {BACKLOG} events is worked off at {rate:.0f} events/s")
    return in_time


def _measure(stack: Stack, how: str) -> float:
    """Saturate the API, print what came of it, and return the 99th percentile from commit to Kafka in seconds."""
    ((begin,),) = _query(stack, NOW)
    seconds = _saturate(stack, SECONDS)
    _until_sent(stack)
    delays = _delays(stack, begin)
    print(
        f"relay: {how}: {len(seconds) / SECONDS:.0f} creates/s by {CALLERS} callers (median "
        f"{_at(seconds, 0.5) * 1000:.0f} ms); commit to Kafka p50 {_at(delays, 0.5) * 1000:.0f} ms, p99 "
        f"{_at(delays, 0.99) * 1000:.0f} ms"
    )
    return _at(delays, 0.99)


def _keep_apart(stack: Stack) -> None:
    """Give the API and what this process starts from now on one core, and all others the rest."""
    others = [pid for name in ("postgres", "kafka", "relay") for pid in processes(stack, name)]
    keep_apart([os.getpid(), *processes(stack, "api")], others)


def _note_times(stack: Stack) -> None:
    """Have PostgreSQL note when it commits, and Kafka when it appends, both by the clock of this machine."""
    with psycopg.connect(stack.dsn, autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET track_commit_timestamp = on")
    topic = ConfigResource(ConfigResourceType.TOPIC, TICKET_EVENTS, {"message.timestamp.type": "LogAppendTime"})
    with closing(KafkaAdminClient(bootstrap_servers=stack.kafka_bootstrap)) as admin:
        admin.alter_configs([topic])
    for name in ("postgres", "api", "relay"):
        stack.part(name).restart()


def _delays(stack: Stack, begin: datetime) -> list[float]:
    """Seconds from each commit since `begin` to the moment at which Kafka appended the event, shortest first."""
    committed = dict(_query(stack, COMMITS, begin))
    appended: dict[str, float] = {}
    consumer = KafkaConsumer(bootstrap_servers=stack.kafka_bootstrap, auto_offset_reset="earliest", group_id=None)
    with closing(consumer):
        consumer.assign([TopicPartition(TICKET_EVENTS, n) for n in consumer.partitions_for_topic(TICKET_EVENTS)])
        while not committed.keys() <= appended.keys():
            for record in itertools.chain.from_iterable(consumer.poll(timeout_ms=500).values()):
                appended.setdefault(dict(record.headers)["ce_id"].decode(), record.timestamp / 1000)
    return sorted(appended[event] - moment for event, moment in committed.items())


def _saturate(stack: Stack, length: float) -> list[float]:
    """How long each of the creates took that were made in so many seconds, shortest first."""
    arguments = [stack.grpc_target, stack.mint_token("service"), str(length), str(CALLERS)]
    done = subprocess.run(
        [sys.executable, "-m", "bench.creates", *arguments],
        env={**os.environ, **stack.service_env()},
        cwd=CHECKOUT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return sorted(map(float, done.stdout.split()))


def _work_off_a_backlog(stack: Stack) -> float:
    """Events a second of one relay."""
    relay = stack.part("relay")
    relay.kill()
    with psycopg.connect(stack.dsn, autocommit=True) as connection:
        connection.execute(FILL, [BACKLOG // 5])
    relay.start()
    _until_sent(stack)
    ((seconds,),) = _query(stack, SPAN)
    return BACKLOG / float(seconds)


def _until_sent(stack: Stack) -> None:
    while _query(stack, UNSENT) != [(0,)]:
        time.sleep(0.1)


def _query(stack: Stack, statement: str, *values: object) -> list[tuple[Any, ...]]:
    with psycopg.connect(stack.dsn, autocommit=True) as connection:
        return connection.execute(statement.encode(), values or None).fetchall()


def _at(ordered: Sequence[float], share: float) -> float:
    return ordered[int(share * (len(ordered) - 1))]
