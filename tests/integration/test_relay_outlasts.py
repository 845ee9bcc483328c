"""What a relay says while it can't send: each trouble once, however long it lasts."""

import json
import os
import subprocess
import sys
from pathlib import Path

import psycopg

from devstack.part import CHECKOUT
from devstack.ports import LOOPBACK, free_port
from devstack.service import python_path
from tests.system.vocabulary import eventually

ATTEMPTS = 3
SESSIONS = b"SELECT pid FROM pg_stat_activity WHERE application_name = %s"


def test_a_kafka_that_stays_away_is_told_of_once(own_dsn: str, tmp_path: Path) -> None:
    settings = {"DATABASE_URL": own_dsn, "KAFKA_BOOTSTRAP_SERVERS": f"{LOOPBACK}:{free_port()}"}
    env = {**os.environ, **settings, "PYTHONPATH": python_path(None)}
    with psycopg.connect(own_dsn, autocommit=True) as connection, (tmp_path / "log").open("wb") as log:
        # A process, since Kafka's client leaves the sockets of its vain attempts to the garbage collector.
        relay = subprocess.Popen(
            [sys.executable, "-m", "server", "relay"], env=env, cwd=CHECKOUT, stdout=log, stderr=log
        )
        sessions = set[int]()

        def has_tried() -> bool:
            # A session for each attempt.
            sessions.update(pid for (pid,) in connection.execute(SESSIONS, [f"nibble-relay-{relay.pid}"]))
            return len(sessions) > ATTEMPTS

        try:
            eventually(has_tried, 60)
        finally:
            relay.kill()
            relay.wait()
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [line["event"] for line in lines] == ["relaying", "events wait: Kafka does not take them"]
