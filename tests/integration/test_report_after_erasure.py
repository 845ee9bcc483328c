"""The report is the same before and after an erasure, whichever events come erased: it never knew whose they are."""

import random
from datetime import timedelta
from uuid import UUID

import pytest

from server.analytics.rebuild import rebuild
from server.analytics.reports import Interval
from server.db.database import Database
from server.domain.privacy import ERASED
from tests.integration.test_report_figures import (
    NOW,
    assert_same,
    consume,
    db,
    facts_dsn,
    facts_in,
    mixed,
    report,
    some_lives,
)
from tests.integration.traces import traces
from tests.system.vocabulary import dice
from tests.ticket_lives import AGENTS, BEGIN, Event, Life, an_id, report_of

__all__ = ["db", "facts_dsn"]


def erased(chance: random.Random, life: Life) -> Life:
    """The life as it is read after the erasure of its owner, the event of that at its end."""
    pseudonym, owner = str(an_id(chance)), life[0].ticket.user_id
    told = []
    for event in (*life, life[-1]):
        copy = Event()
        copy.CopyFrom(event)
        copy.ticket.user_id, copy.ticket.subject = pseudonym, ERASED
        if copy.actor.user_id == owner:
            copy.actor.user_id = pseudonym
        told.append(copy)
    last = told[-1]
    last.event_id, last.event_type, last.erased_user_id = str(an_id(chance)), Event.Type.ticket_erased, owner
    last.sequence += 1
    last.occurred_at.FromDatetime(last.occurred_at.ToDatetime() + timedelta(days=90))
    return told


@pytest.mark.parametrize("forget", [False, True])
async def test_figures_and_facts_are_the_same_whichever_events_come_erased(
    facts_dsn: str,
    db: Database,
    forget: bool,
) -> None:
    chance = dice("report after erasure")
    lives = some_lives(chance)
    consume(facts_dsn, mixed(chance, lives))
    facts = facts_in(facts_dsn)
    start, end = BEGIN, BEGIN + timedelta(days=60)
    before = await report(db, start, end)

    gone = [erased(chance, life) for life in lives]
    consume(facts_dsn, [life[-1] for life in gone])
    assert facts_in(facts_dsn) == facts
    # The topic still has some events as they were, and some were sent again as they are now.
    generation = rebuild(facts_dsn, NOW, forget=forget)
    events = [
        *(chance.choice(pair) for old, new in zip(lives, gone, strict=True) for pair in zip(old, new, strict=False)),
        *(life[-1] for life in gone),
    ]
    chance.shuffle(events)
    consume(facts_dsn, events, generation=generation)
    assert facts_in(facts_dsn) == facts
    after = await report(db, start, end)
    assert_same(after, before)
    assert_same(after, report_of(lives, start, end, Interval.DAY))


def test_no_owner_is_in_the_tables_before_or_after(facts_dsn: str) -> None:
    chance = dice("owners")
    lives = some_lives(chance, 30)
    owners = {UUID(life[0].ticket.user_id) for life in lives} - set(AGENTS)
    assert owners
    consume(facts_dsn, mixed(chance, lives))
    consume(facts_dsn, [erased(chance, life)[-1] for life in lives])
    # Other tests have left rows of the other services.
    found = traces(facts_dsn, *owners, ERASED, "Cold soup").values()
    assert not [place for places in found for place in places if place.startswith("analytics_service.")]
