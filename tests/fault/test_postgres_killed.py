"""PostgreSQL killed while tickets are created: callers are told honestly, and what was acknowledged is there."""

from tests.fault.load import all_are_published, at_work, deliveries_of, event_ids_of, more, until_enough
from tests.system.doors import DEADLINE_EXCEEDED, OK, UNAVAILABLE
from tests.system.stage import Stage
from tests.system.vocabulary import dice, eventually

CALLERS = 6
KILLS = 2
RECOVERY_SECONDS = 10.0


def test_what_was_acknowledged_survives_postgres_and_callers_see_unavailable_meanwhile(stage: Stage) -> None:
    chance, postgres = dice("postgres"), stage.stack.part("postgres")
    with at_work(CALLERS, until_enough(stage.doors)) as shift:
        for _ in range(KILLS):
            more(shift, chance.randint(20, 200))
            failures = shift.ledger.codes[UNAVAILABLE]
            postgres.kill()
            eventually(lambda n=failures: shift.ledger.codes[UNAVAILABLE] > n)
            postgres.start()
            more(shift, 100, within=RECOVERY_SECONDS)
        shift.enough.set()
        ledger = shift.finish()

    print(f"answers by code: {dict(ledger.codes)}; the slowest took {max(ledger.seconds):.1f} s")  # noqa: T201
    assert ledger.codes.keys() <= {OK, UNAVAILABLE, DEADLINE_EXCEEDED}
    assert len(event_ids_of(stage, ledger.ticket_ids)) == len(ledger.ticket_ids)
    all_are_published(stage)
    deliveries_of(stage, ledger)
