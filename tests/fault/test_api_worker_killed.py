"""An API worker killed while tickets are created: acknowledged creates exist once, and service goes on."""

from functools import partial

import httpx
import psutil

from devstack.ports import accepts
from devstack.service import is_serving
from tests.fault.load import (
    PAUSE_SECONDS,
    RETRY_PAUSE_SECONDS,
    Shift,
    Work,
    all_are_published,
    at_work,
    deliveries_of,
    until_enough,
)
from tests.system.doors import OK, UNAVAILABLE
from tests.system.stage import WORKERS, Stage
from tests.system.vocabulary import as_customer, dice, eventually, new_id

CALLERS = 6
RESTART_SECONDS = 15.0


def worker(stage: Stage, number: int) -> psutil.Process | None:
    """The process that listens on that worker's port, None while there is none."""
    port = str(stage.stack.ports.grpc + number)
    for child in psutil.Process(stage.stack.part("api").pid).children():
        try:
            if child.environ().get("GRPC_PORT") == port and child.status() != psutil.STATUS_ZOMBIE:
                return child
        except psutil.Error:
            continue
    return None


def serves(stage: Stage, number: int) -> bool:
    """Whether that worker says that it serves."""
    return is_serving(stage.stack.ports.grpc + number)


def has_work(stage: Stage, number: int) -> bool:
    """Whether the gateway has sent that worker calls since it started."""
    return "nibble_calls_total{" in httpx.get(stage.stack.metrics_urls[number], trust_env=False).text


def creates_with_retries(stage: Stage) -> Work:
    """Work: until told that it is enough, creates a ticket and tries again with the same key until it has it."""

    def work(number: int, shift: Shift) -> None:
        door = stage.doors[number % 2]
        while not shift.enough.is_set():
            owner, key = as_customer(), new_id()
            while shift.ledger.create(door, owner, key=key).code != OK:
                shift.enough.wait(RETRY_PAUSE_SECONDS)
            shift.enough.wait(PAUSE_SECONDS)

    return work


def test_acknowledged_creates_exist_once_whichever_worker_is_killed(stage: Stage) -> None:
    chance = dice("worker")
    with at_work(CALLERS, creates_with_retries(stage)) as shift:
        for number in chance.sample(range(WORKERS), WORKERS):
            shift.wait_for(OK, chance.randint(20, 200))
            victim = worker(stage, number)
            assert victim is not None
            before = shift.ledger.codes[OK]
            victim.kill()
            victim.wait(5)
            eventually(partial(serves, stage, number), RESTART_SECONDS)
            assert shift.ledger.codes[OK] > before + 20, "the other worker did not go on"
            eventually(partial(has_work, stage, number), RESTART_SECONDS)
        shift.wait_for(OK, 100)
        shift.enough.set()
        ledger = shift.finish()

    print(f"answers by code: {dict(ledger.codes)}")  # noqa: T201
    assert ledger.codes.keys() <= {OK, UNAVAILABLE}
    owners = list({ticket["user_id"] for ticket in ledger.tickets})
    rows = stage.query("SELECT id FROM admin_service.support_tickets WHERE user_id = ANY(%s::uuid[])", owners)
    assert sorted(str(row[0]) for row in rows) == sorted(ticket["id"] for ticket in ledger.tickets)
    all_are_published(stage)
    deliveries_of(stage, ledger)


def test_workers_that_are_restarted_one_after_the_other_cost_no_caller_a_call(stage: Stage) -> None:
    with at_work(CALLERS, until_enough([stage.rest, stage.grpc])) as shift:
        for number in range(WORKERS):
            shift.wait_for(OK, 50)
            ending = worker(stage, number)
            assert ending is not None
            ending.terminate()
            ending.wait(10)
            eventually(partial(serves, stage, number), RESTART_SECONDS)
            eventually(partial(has_work, stage, number), RESTART_SECONDS)
        shift.wait_for(OK, 50)
        shift.enough.set()
        ledger = shift.finish()
    assert ledger.codes.keys() == {OK}


def test_with_no_worker_left_the_gateway_says_so_and_when_to_try_again(stage: Stage) -> None:
    api, caller = stage.stack.part("api"), as_customer()
    api.kill()
    # The workers notice that the process above them is gone, and end.
    eventually(lambda: not any(accepts(stage.stack.ports.grpc + number) for number in range(WORKERS)))
    eventually(lambda: stage.rest.http.get("/healthz").status_code == 503)
    for door in (stage.rest, stage.grpc):
        answer = door.call("ListMyTickets", caller)
        assert (answer.code, answer.reason) == (UNAVAILABLE, "DEPENDENCY_UNAVAILABLE"), (door.name, answer)
        assert answer.retry_delay, (door.name, answer)

    api.start()
    eventually(lambda: all(door.call("ListMyTickets", caller).code == OK for door in stage.doors))
