"""More callers at once than a process takes: the excess is told so at once, and nobody else notices."""

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from nibble.support.v1 import ticket_service_pb2, ticket_service_pb2_grpc

from tests.fault.row_lock import held, waiting
from tests.system.doors import OK, RESOURCE_EXHAUSTED, Answer, Caller, Door
from tests.system.stage import Stage, small_stage
from tests.system.vocabulary import as_customer, as_service, eventually, new_id, open_ticket

LIMIT = 6
# The admitted calls are held for eight seconds at most; to be refused in this time is to be refused before that.
AT_ONCE_SECONDS = 4.0
WAVES, CALLS_A_WAVE = 5, 60
# What the stage's own settings allow.
AT_THE_SAME_MOMENT = 200
NOTHING = ticket_service_pb2.ListMyTicketsRequest()


@pytest.fixture(scope="module")
def narrow() -> Iterator[Stage]:
    """A system whose one API process takes LIMIT calls at a time."""
    with small_stage(MAX_CONCURRENT_CALLS=str(LIMIT)) as stage:
        yield stage


@contextmanager
def watched_health(stage: Stage) -> Iterator[None]:
    """Asks the health service again and again meanwhile; AssertionError when it was ever late or not SERVING."""
    stub, enough = health_pb2_grpc.HealthStub(stage.own_port.channel), threading.Event()

    def watch() -> Counter[int]:
        seen: Counter[int] = Counter()
        while not enough.wait(0.02):
            seen[stub.Check(health_pb2.HealthCheckRequest(), timeout=5).status] += 1
        return seen

    with ThreadPoolExecutor(1) as pool:
        watching = pool.submit(watch)
        try:
            yield
        finally:
            enough.set()
        assert set(watching.result(10)) == {health_pb2.HealthCheckResponse.SERVING}


def comment(door: Door, owner: Caller, ticket: dict[str, Any]) -> Answer:
    return door.call("AddComment", owner, ticket_id=ticket["id"], comment=new_id())


def texts_of(stage: Stage, ticket: dict[str, Any]) -> list[str]:
    """The comments on the ticket, from the table."""
    rows = stage.query("SELECT comment FROM admin_service.ticket_comments WHERE ticket_id = %s", ticket["id"])
    return [row[0] for row in rows]


def admitted(stage: Stage, pool: ThreadPoolExecutor, owner: Caller, ticket: dict[str, Any]) -> list[Future[Answer]]:
    """As many calls as the process takes, held in the middle of their work."""
    sent = [pool.submit(comment, stage.own_port, owner, ticket) for _ in range(LIMIT)]
    eventually(lambda: waiting(stage) == LIMIT)
    return sent


@pytest.mark.parametrize("number", [0, 1, 2], ids=["REST", "gRPC", "own port"])
def test_what_is_above_the_limit_is_refused_at_once_and_the_rest_is_served(narrow: Stage, number: int) -> None:
    door, owner = narrow.doors[number], as_customer()
    ticket = open_ticket(door, owner)
    with ThreadPoolExecutor(2 * LIMIT) as pool, watched_health(narrow), held(narrow, ticket) as lock:
        inside = admitted(narrow, pool, owner, ticket)
        excess = [pool.submit(comment, door, owner, ticket) for _ in range(LIMIT)]
        done, late = wait(excess, AT_ONCE_SECONDS)
        assert not late
        assert not any(call.done() for call in inside)
        lock.rollback()
        served = [call.result().resource for call in inside]

    for answer in (call.result() for call in done):
        assert (answer.code, answer.reason) == (RESOURCE_EXHAUSTED, "OVERLOADED"), answer
        assert answer.retry_delay, answer
    assert sorted(texts_of(narrow, ticket)) == sorted(comment["comment"] for comment in served)
    assert comment(door, owner, ticket).code == OK


async def test_as_many_calls_as_a_process_takes_may_come_at_the_same_moment(stage: Stage) -> None:
    target, metadata = stage.stack.grpc_target, (("authorization", f"Bearer {stage.mint(as_customer())}"),)
    async with grpc.aio.insecure_channel(target, options=[("grpc.enable_http_proxy", 0)]) as channel:
        stub: Any = ticket_service_pb2_grpc.TicketServiceStub(channel)
        for _ in range(3):
            together = (stub.ListMyTickets(NOTHING, metadata=metadata, timeout=20) for _ in range(AT_THE_SAME_MOMENT))
            await asyncio.gather(*together)


def test_over_rest_the_excess_is_http_429(narrow: Stage) -> None:
    owner = as_customer()
    ticket = open_ticket(narrow.rest, owner)
    headers = {"authorization": f"Bearer {narrow.mint(owner)}"}
    with ThreadPoolExecutor(LIMIT) as pool, held(narrow, ticket) as lock:
        inside = admitted(narrow, pool, owner, ticket)
        refused = narrow.rest.http.get(f"/api/v1/tickets/{ticket['id']}", headers=headers)
        lock.rollback()
        assert all(call.result().code == OK for call in inside)

    assert refused.status_code == 429
    assert refused.headers["content-type"] == "application/json"
    assert refused.json()["details"][1]["@type"] == "type.googleapis.com/google.rpc.RetryInfo"


def test_waves_of_twice_the_limit_make_one_ticket_for_each_success_and_none_else(narrow: Stage) -> None:
    # A service, since the gateway lets that one make calls as fast as it can.
    owner, codes, made = as_service(), Counter[str](), list[str]()

    def create(number: int) -> Answer:
        return narrow.doors[number % 3].call("CreateTicket", owner, subject=new_id(), description="d")

    with ThreadPoolExecutor(2 * LIMIT) as pool, watched_health(narrow):
        for _ in range(WAVES):
            for answer in pool.map(create, range(CALLS_A_WAVE)):
                codes[answer.reason or "OK"] += 1
                made += [answer.payload["id"]] if answer.code == OK else []

    print(f"answers: {dict(codes)}")  # noqa: T201
    assert set(codes) <= {"OK", "OVERLOADED"}
    rows = narrow.query("SELECT id FROM admin_service.support_tickets WHERE user_id = %s", owner.id)
    assert sorted(str(row[0]) for row in rows) == sorted(made)
    began = time.monotonic()
    assert all(create(number).code == OK for number in range(9))
    assert time.monotonic() - began < AT_ONCE_SECONDS
