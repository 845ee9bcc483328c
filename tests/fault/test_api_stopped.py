"""An API process told to stop while calls are in flight: they are answered, and it ends within its grace."""

import signal
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from devstack.service import is_serving
from tests.fault.api_process import GRACE_SECONDS, ApiProcess
from tests.fault.row_lock import held, waiting
from tests.system.doors import CANCELLED, DEADLINE_EXCEEDED, OK, UNAVAILABLE, Answer
from tests.system.stage import Stage
from tests.system.vocabulary import as_customer, eventually, open_ticket

IN_FLIGHT = 6
# What the process may take beyond its grace, to close its connections and end.
MARGIN_SECONDS = 3.0


def comments(stage: Stage, api: ApiProcess, pool: ThreadPoolExecutor, ticket: dict[str, Any]) -> list[Future[Answer]]:
    """Comments by the ticket's owner that are in flight, waiting for its row."""
    owner = as_customer()._replace(id=ticket["user_id"])
    sent = [
        pool.submit(api.door.call, "AddComment", owner, ticket_id=ticket["id"], comment=f"number {i}")
        for i in range(IN_FLIGHT)
    ]
    eventually(lambda: waiting(stage) == IN_FLIGHT)
    return sent


def test_calls_in_flight_are_answered_before_the_process_ends(stage: Stage, api: ApiProcess) -> None:
    ticket = open_ticket(stage.grpc, as_customer())
    with ThreadPoolExecutor(IN_FLIGHT) as pool, held(stage, ticket) as lock:
        sent = comments(stage, api, pool, ticket)
        api.process.send_signal(signal.SIGTERM)
        eventually(lambda: not is_serving(api.port))
        assert api.process.poll() is None
        lock.rollback()
        answers = [call.result(GRACE_SECONDS) for call in sent]

    assert [answer.code for answer in answers] == [OK] * IN_FLIGHT
    assert api.process.wait(GRACE_SECONDS + MARGIN_SECONDS) == 0
    owner = as_customer()._replace(id=ticket["user_id"])
    listed = stage.grpc.call("ListComments", owner, ticket_id=ticket["id"]).resource["comments"]
    assert {comment["id"] for comment in listed} == {answer.payload["id"] for answer in answers}


def test_calls_that_outlast_the_grace_are_given_up_and_the_process_ends_all_the_same(
    stage: Stage, api: ApiProcess
) -> None:
    ticket = open_ticket(stage.grpc, as_customer())
    with ThreadPoolExecutor(IN_FLIGHT) as pool, held(stage, ticket):
        sent = comments(stage, api, pool, ticket)
        began = time.monotonic()
        api.process.send_signal(signal.SIGTERM)
        assert api.process.wait(GRACE_SECONDS + MARGIN_SECONDS) == 0
        assert time.monotonic() - began > GRACE_SECONDS / 2
        answers = [call.result(1) for call in sent]

    assert {answer.code for answer in answers} <= {CANCELLED, DEADLINE_EXCEEDED, UNAVAILABLE}
    owner = as_customer()._replace(id=ticket["user_id"])
    assert stage.grpc.call("ListComments", owner, ticket_id=ticket["id"]).resource["comments"] == []
