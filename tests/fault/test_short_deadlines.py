"""Callers who wait for milliseconds only: most calls are cut off, every write is whole or not there, nothing leaks."""

import random
import re
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import grpc
import httpx
import psutil
import pytest
from google.protobuf.message import Message
from nibble.support.v1 import (
    comment_service_pb2,
    comment_service_pb2_grpc,
    ticket_pb2,
    ticket_service_pb2,
    ticket_service_pb2_grpc,
)

from devstack.ports import LOOPBACK, free_port
from devstack.service import is_serving
from tests.fault.api_process import ApiProcess, serving
from tests.system.doors import Caller
from tests.system.stage import Stage
from tests.system.vocabulary import as_agent, as_customer, dice, eventually, open_ticket

CALLS, AT_ONCE, TICKETS = 2_000, 10, 20
# What the memory of a process may move by itself, in bytes.
SWAY = 6 * 2**20
NAME = "hurried"


class Hurried:
    """An API process whose sessions PostgreSQL can tell from others, and what is asked of it."""

    def __init__(self, stage: Stage, process: ApiProcess, metrics_port: int) -> None:
        self.stage = stage
        self.process = process
        self.owner, self.agent = as_customer(), as_agent()
        self.tickets = [open_ticket(process.door, self.owner) for _ in range(TICKETS)]
        self.on_tickets = ticket_service_pb2_grpc.TicketServiceStub(process.door.channel)
        self.on_comments = comment_service_pb2_grpc.CommentServiceStub(process.door.channel)
        self._metrics = f"http://{LOOPBACK}:{metrics_port}/metrics"

    def calls(self, chance: random.Random) -> Iterator[Callable[[], str]]:
        """CALLS calls, reads and writes mixed, each with a deadline of 1 to 20 ms; each returns its code's name."""
        for number in range(CALLS):
            stub, request, caller = self._choose(chance, f"number {number}")
            yield partial(self._code, stub, request, caller, chance.uniform(0.001, 0.020))

    def _choose(self, chance: random.Random, text: str) -> tuple[Any, Message, Caller]:
        service, ticket_id = ticket_service_pb2, chance.choice(self.tickets)["id"]
        create = service.CreateTicketRequest(subject=text, description=text)
        comment = comment_service_pb2.AddCommentRequest(ticket_id=ticket_id, comment=text)
        status = chance.choice([ticket_pb2.Ticket.open, ticket_pb2.Ticket.in_progress])
        choices: list[tuple[Any, Message, Caller]] = [
            (self.on_tickets.CreateTicket, create, self.owner),
            (self.on_comments.AddComment, comment, self.owner),
            (
                self.on_tickets.UpdateTicketStatus,
                service.UpdateTicketStatusRequest(ticket_id=ticket_id, status=status),
                self.agent,
            ),
            (self.on_tickets.GetTicket, service.GetTicketRequest(ticket_id=ticket_id), self.owner),
            (self.on_tickets.ListMyTickets, service.ListMyTicketsRequest(page_size=5), self.owner),
        ]
        return chance.choice(choices)

    def _code(self, stub: Any, request: Message, caller: Caller, seconds: float) -> str:  # noqa: ANN401
        metadata = (("authorization", f"Bearer {self.stage.mint(caller)}"),)
        try:
            stub(request, metadata=metadata, timeout=seconds)
        except grpc.RpcError as error:
            return str(error.code().name)
        return "OK"

    def make_calls(self, chance: random.Random) -> Counter[str]:
        """How many of CALLS calls came to which code."""
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return Counter(pool.map(lambda call: call(), self.calls(chance)))

    def is_idle(self) -> bool:
        """No call is admitted, and no session works or has a transaction open."""
        return self.measured("nibble_calls_in_flight") == 0 and set(self.sessions()) == {"idle"}

    def measured(self, name: str, labels: str = "") -> float:
        """The sum of that metric of the process over all whose labels match the pattern."""
        text = httpx.get(self._metrics, trust_env=False).text
        return sum(float(value) for value in re.findall(rf"^{name}(?:{{{labels}}})? (\S+)$", text, re.MULTILINE))

    def sessions(self) -> list[str]:
        """The states of the process's sessions at PostgreSQL."""
        return [
            row[0] for row in self.stage.query("SELECT state FROM pg_stat_activity WHERE application_name = %s", NAME)
        ]

    def memory(self) -> int:
        """What the process holds, in bytes."""
        return int(psutil.Process(self.process.process.pid).memory_info().rss)


@pytest.fixture
def hurried(stage: Stage) -> Iterator[Hurried]:
    """A process of its own, serving."""
    port, url = free_port(), f"{stage.stack.dsn}&application_name={NAME}"
    with serving(stage, DATABASE_URL=url, METRICS_PORT=str(port)) as process:
        yield Hurried(stage, process, port)


def halves(stage: Stage, owner: Caller) -> list[tuple[Any, ...]]:
    """The owner's tickets that their events do not account for, one for one."""
    return stage.query(
        """
        SELECT t.id, t.version, t.event_count, told.* FROM admin_service.support_tickets t CROSS JOIN LATERAL (
            SELECT count(*) AS events,
                count(DISTINCT change_id) FILTER (WHERE event_type <> 'ticket_commented') AS changes,
                count(*) FILTER (WHERE event_type = 'ticket_commented') AS commented,
                (SELECT count(*) FROM admin_service.ticket_comments c WHERE c.ticket_id = t.id) AS comments
            FROM admin_service.ticket_events e WHERE e.ticket_id = t.id) told
        WHERE t.user_id = %s
            AND (t.version <> told.changes OR t.event_count <> told.events OR told.commented <> told.comments)
        """,
        owner.id,
    )


@pytest.mark.timeout(240)
def test_calls_cut_off_after_milliseconds_leave_nothing_behind(stage: Stage, hurried: Hurried) -> None:
    chance = dice("deadlines")
    codes = hurried.make_calls(chance)
    eventually(hurried.is_idle)
    before = hurried.memory()
    codes += hurried.make_calls(chance)
    eventually(hurried.is_idle)
    grown = hurried.memory() - before

    begun, cut_off = (hurried.measured("nibble_calls_total", labels) for labels in (".*", '.*code="(?:DEAD|CANC).*'))
    print(f"answers: {dict(codes)}; begun: {begun}; cut off there: {cut_off}; grown by {grown / 2**20:.1f} MiB")  # noqa: T201
    assert cut_off > CALLS / 20, "too few calls got as far as the process"
    assert set(codes) <= {"OK", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "ABORTED"}
    assert hurried.measured("nibble_calls_total", '.*code="INTERNAL".*') == 0
    assert grown < SWAY
    assert halves(stage, hurried.owner) == []
    assert is_serving(hurried.process.port)
    assert hurried.process.door.call("GetTicket", hurried.owner, ticket_id=hurried.tickets[0]["id"]).code == 0
