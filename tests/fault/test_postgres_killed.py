"""PostgreSQL killed while tickets are created: callers are told honestly, and what was acknowledged is there."""

import time
from concurrent.futures import ThreadPoolExecutor

from tests.fault.api_process import ApiProcess
from tests.fault.load import all_are_published, at_work, deliveries_of, event_ids_of, until_enough
from tests.system.doors import DEADLINE_EXCEEDED, OK, UNAVAILABLE, Answer, Door
from tests.system.stage import Stage
from tests.system.vocabulary import as_customer, dice, eventually

CALLERS = 6
KILLS = 2
RECOVERY_SECONDS = 10.0
OUTAGE_SECONDS = 8.0


def test_what_was_acknowledged_survives_postgres_and_callers_see_unavailable_meanwhile(stage: Stage) -> None:
    chance, postgres = dice("postgres"), stage.stack.part("postgres")
    with at_work(CALLERS, until_enough(stage.doors)) as shift:
        for _ in range(KILLS):
            shift.wait_for(OK, chance.randint(20, 200))
            postgres.kill()
            shift.wait_for(UNAVAILABLE)
            postgres.start()
            shift.wait_for(OK, 100, within=RECOVERY_SECONDS)
        shift.enough.set()
        ledger = shift.finish()

    print(f"answers by code: {dict(ledger.codes)}; the slowest took {max(ledger.seconds):.1f} s")  # noqa: T201
    assert ledger.codes.keys() <= {OK, UNAVAILABLE, DEADLINE_EXCEEDED}
    assert len(event_ids_of(stage, ledger.ticket_ids)) == len(ledger.ticket_ids)
    all_are_published(stage)
    deliveries_of(stage, ledger)


def refusal_at(door: Door) -> Answer:
    """What a create comes to when PostgreSQL is down; a session may outlive its server by a moment."""

    def refused() -> Answer | None:
        answer = door.call("CreateTicket", as_customer(), subject="s", description="d")
        return None if answer.code == OK else answer

    return eventually(refused)


def test_while_postgres_is_down_every_door_says_so_and_when_to_try_again(stage: Stage) -> None:
    stage.stack.part("postgres").kill()
    with ThreadPoolExecutor() as pool:
        answers = list(pool.map(refusal_at, stage.doors))
    for answer in answers:
        assert (answer.code, answer.reason) == (UNAVAILABLE, "DEPENDENCY_UNAVAILABLE"), answer
        assert answer.retry_delay, answer
    # The workers go on serving: it is not they who are to blame.
    assert stage.rest.http.get("/healthz").status_code == 200


def test_calls_succeed_again_at_once_after_a_longer_outage_too(stage: Stage, api: ApiProcess) -> None:
    postgres = stage.stack.part("postgres")
    postgres.kill()
    back_at = time.monotonic() + OUTAGE_SECONDS
    while time.monotonic() < back_at:
        refusal_at(api.door)
    postgres.start()

    # Were the pauses between attempts to connect to grow with the outage, it would take about as long again.
    eventually(lambda: api.door.call("ListMyTickets", as_customer()).code == OK, 2.5)
