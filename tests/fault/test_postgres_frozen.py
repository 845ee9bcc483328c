"""PostgreSQL stands still, its connections open: callers are answered in time, and a process can still be stopped."""

import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import psutil
import pytest
from nibble.support.v1 import ticket_service_pb2, ticket_service_pb2_grpc

from devstack.service import is_serving
from server.workers.relay import BACKLOG_SECONDS
from tests.fault.api_process import GRACE_SECONDS, ApiProcess, serving
from tests.fault.relay_process import relay_of
from tests.frozen import frozen, whole
from tests.system.doors import OK
from tests.system.stage import Stage
from tests.system.vocabulary import as_customer, eventually

CALLERS = 6
DEADLINE = 1.0
# What giving a connection up takes, and what a busy machine may add. The driver by itself would take ten seconds more.
MARGIN = 3.0


@pytest.fixture
def impatient(stage: Stage) -> Iterator[ApiProcess]:
    """A process that gives callers without a deadline one of a second."""
    with serving(stage, DEFAULT_DEADLINE_SECONDS=str(DEADLINE)) as process:
        yield process


def postgres(stage: Stage) -> list[psutil.Process]:
    return whole(psutil.Process(stage.stack.part("postgres").pid))


def ask(stage: Stage, process: ApiProcess) -> tuple[grpc.StatusCode, float]:
    """What a call without a deadline of its own comes to, and after how many seconds."""
    stub = ticket_service_pb2_grpc.TicketServiceStub(process.door.channel)
    metadata = (("authorization", f"Bearer {stage.mint(as_customer())}"),)
    began = time.monotonic()
    try:
        stub.ListMyTickets(ticket_service_pb2.ListMyTicketsRequest(), metadata=metadata)
    except grpc.RpcError as error:
        return error.code(), time.monotonic() - began
    return grpc.StatusCode.OK, time.monotonic() - began


def test_callers_are_answered_at_their_deadline_and_served_again_when_it_moves(
    stage: Stage, impatient: ApiProcess
) -> None:
    with ThreadPoolExecutor(CALLERS) as pool:
        assert {code for code, _ in pool.map(lambda _: ask(stage, impatient), range(CALLERS))} == {grpc.StatusCode.OK}
        with frozen(postgres(stage)):
            for _ in range(2):
                for code, seconds in pool.map(lambda _: ask(stage, impatient), range(CALLERS)):
                    assert code in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE)
                    assert seconds < DEADLINE + MARGIN
            assert is_serving(impatient.port)
        eventually(lambda: impatient.door.call("ListMyTickets", as_customer()).code == OK)
        answers = list(pool.map(lambda _: ask(stage, impatient), range(4 * CALLERS)))
        assert {code for code, _ in answers} == {grpc.StatusCode.OK}


def test_a_relay_tells_how_old_its_figures_are(stage: Stage) -> None:
    relay = relay_of(stage)
    began = time.time()
    eventually(lambda: relay.metric("backlog_timestamp_seconds") > began)
    with frozen(postgres(stage)):
        frozen_at = time.time()
        eventually(lambda: time.time() > frozen_at + BACKLOG_SECONDS + MARGIN, 2 * BACKLOG_SECONDS)
        assert relay.metric("backlog_timestamp_seconds") < frozen_at + 1
    moves_at = time.time()
    eventually(lambda: relay.metric("backlog_timestamp_seconds") > moves_at)


def test_a_process_that_is_told_to_stop_meanwhile_ends_within_its_grace(stage: Stage, api: ApiProcess) -> None:
    with ThreadPoolExecutor(CALLERS) as pool:
        list(pool.map(lambda _: ask(stage, api), range(CALLERS)))
        with frozen(postgres(stage)):
            asked = [pool.submit(ask, stage, api) for _ in range(CALLERS)]
            done = [call for call in asked if call.done()]
            api.process.send_signal(signal.SIGTERM)
            assert api.process.wait(GRACE_SECONDS + MARGIN) == 0
            assert done == []
            codes = {call.result()[0] for call in asked}
    assert codes <= {grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
