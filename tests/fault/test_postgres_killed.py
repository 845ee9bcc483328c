"""PostgreSQL killed while tickets are created: callers are told honestly, and what was acknowledged is there."""

from tests.fault.load import all_are_published, at_work, deliveries_of, event_ids_of, until_enough
from tests.system.doors import DEADLINE_EXCEEDED, OK, UNAVAILABLE
from tests.system.stage import Stage
from tests.system.vocabulary import as_customer, dice

CALLERS = 6
KILLS = 2
RECOVERY_SECONDS = 10.0


def insist_on_retry_info(stage: Stage) -> None:
    """Every door says the same: unavailable, and when to try again."""
    for door in stage.doors:
        answer = door.call("CreateTicket", as_customer(), subject="s", description="d")
        assert (answer.code, answer.reason) == (UNAVAILABLE, "DEPENDENCY_UNAVAILABLE"), (door.name, answer)
        assert answer.retry_delay, (door.name, answer)


def test_what_was_acknowledged_survives_postgres_and_callers_see_unavailable_meanwhile(stage: Stage) -> None:
    chance, postgres = dice("postgres"), stage.stack.part("postgres")
    with at_work(CALLERS, until_enough(stage.doors)) as shift:
        for _ in range(KILLS):
            shift.wait_for(OK, chance.randint(20, 200))
            postgres.kill()
            shift.wait_for(UNAVAILABLE)
            insist_on_retry_info(stage)
            postgres.start()
            shift.wait_for(OK, 100, within=RECOVERY_SECONDS)
        shift.enough.set()
        ledger = shift.finish()

    print(f"answers by code: {dict(ledger.codes)}; the slowest took {max(ledger.seconds):.1f} s")  # noqa: T201
    assert ledger.codes.keys() <= {OK, UNAVAILABLE, DEADLINE_EXCEEDED}
    assert len(event_ids_of(stage, ledger.ticket_ids)) == len(ledger.ticket_ids)
    all_are_published(stage)
    deliveries_of(stage, ledger)
