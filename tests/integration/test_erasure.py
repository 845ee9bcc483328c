"""Erasing a person's data in the support service: nothing is left of it, and nothing else changes."""

import asyncio
import itertools
from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg.types.json import Jsonb

from server.db import statements
from server.db.statement import fetch
from server.domain.callers import Caller
from server.domain.privacy import ERASED, Progress
from server.domain.tickets import Ticket
from server.errors import InvalidFields, TicketNotFound
from server.usecases import erasure
from tests.integration.privacy_acts import erase
from tests.integration.traces import traces
from tests.integration.vocabulary import (
    Desk,
    Row,
    all_tickets,
    as_agent,
    as_customer,
    as_service,
    as_supervisor,
    assign,
    comments_on,
    events_of,
    history_of,
    look_at,
    move,
    note,
    open_ticket,
    query,
    say,
    until,
    whole,
)
from tests.system.vocabulary import dice

WORDS = {
    "subject": "Marzipan",
    "description": "Nougat",
    "order_id": str(uuid4()),
}
TEXTS = [*WORDS.values(), "Pistachio", "Liquorice", "Hazelnut", "Brittle", "4242", "Toffee", "Praline"]
NEVER_OVER = lambda: 1.0  # noqa: E731


async def a_life(desk: Desk, owner: Caller, staff: Caller) -> Ticket:
    """A ticket with everything that a ticket can have."""
    ticket = await open_ticket(desk, owner, **WORDS, key=f"Secret-{uuid4()}")
    desk.clock.pass_by(timedelta(minutes=1))
    await assign(desk, ticket, staff.id)
    await say(desk, ticket, owner, "Pistachio", key=f"Secret-{uuid4()}")
    await say(desk, ticket, staff, "Liquorice")
    await note(desk, ticket, "Hazelnut")
    desk.clock.pass_by(timedelta(minutes=1))
    await move(desk, ticket, "resolved", staff, notes="Brittle")
    await query(
        desk,
        "UPDATE admin_service.ticket_orders SET state = 'known', snapshot = %s, fetched_at = now()",
        Jsonb({"delivery": {"recipient": "Toffee"}}),
    )
    await query(
        desk,
        "INSERT INTO admin_service.ticket_feedback VALUES (%s, 4, 'Praline', %s, now(), now(), %s)",
        *(ticket.id, staff.id, Jsonb([{"field": "remark", "kind": "pin", "start": 0, "length": 7}])),
    )
    await query(
        desk, "INSERT INTO admin_service.concealed_texts VALUES (%s, 'subject', %s, '4242')", ticket.id, ticket.id
    )
    return await look_at(desk, ticket)


def without(row: Row, *names: str) -> Row:
    """The row but for these columns."""
    return {name: value for name, value in row.items() if name not in names}


async def test_no_column_of_any_table_holds_the_users_id_or_texts_any_more(desk: Desk) -> None:
    owner, staff = as_customer(), as_agent()
    for _ in range(3):
        await a_life(desk, owner, staff)
    before = traces(desk.dsn, owner.id, "Secret-", *TEXTS)
    assert before.keys() == {str(owner.id), "Secret-", *TEXTS}, "the texts are there to be erased"

    assert await erase(desk, owner) == Progress(finished=True, erased_tickets=3)
    assert traces(desk.dsn, owner.id, "Secret-", *TEXTS) == {
        str(owner.id): {"admin_service.ticket_events.erased_user_id"}
    }
    assert await erasure.forget_erased_users(desk.on, desk.clock.now, NEVER_OVER) == 0
    await query(desk, "UPDATE admin_service.ticket_events SET published_at = now()")
    assert await erasure.oldest_told_erasure(desk.on, desk.clock.now) is not None
    assert await erasure.forget_erased_users(desk.on, desk.clock.now, NEVER_OVER) == 3
    assert await erasure.oldest_told_erasure(desk.on, desk.clock.now) is None
    assert traces(desk.dsn, owner.id, "Secret-", *TEXTS) == {}


async def test_counts_times_and_all_that_names_nobody_stay(desk: Desk) -> None:
    owner, staff = as_customer(), as_agent()
    ticket = await a_life(desk, owner, staff)
    (old_row,) = await query(desk, "SELECT * FROM admin_service.support_tickets")
    old_comments = await whole(comments_on(desk, ticket))
    old_events = await events_of(desk, ticket)
    (old_feedback,) = await query(desk, "SELECT * FROM admin_service.ticket_feedback")
    desk.clock.pass_by(timedelta(days=30))
    await erase(desk, owner)

    (row,) = await query(desk, "SELECT * FROM admin_service.support_tickets")
    pseudonym = row["user_id"]
    assert pseudonym.version == 4
    assert row == old_row | {
        "user_id": pseudonym,
        "order_id": None,
        **dict.fromkeys(["subject", "description", "resolution_notes"], ERASED),
        "version": old_row["version"] + 1,
        "updated_at": desk.clock.now,
        "event_count": old_row["event_count"] + 1,
        "history_count": old_row["history_count"] + 1,
    }
    assert await whole(comments_on(desk, ticket)) == [
        it._replace(comment=ERASED, user_id=pseudonym if it.user_id == owner.id else it.user_id) for it in old_comments
    ]
    (feedback,) = await query(desk, "SELECT * FROM admin_service.ticket_feedback")
    assert feedback == old_feedback | {"remark": None, "findings": None}
    events = await events_of(desk, ticket)
    assert [without(event, "actor_id", "ticket") for event in events[:-1]] == [
        without(event, "actor_id", "ticket") for event in old_events
    ]
    assert [event["actor_id"] for event in events[:-1]] == [
        pseudonym if event["actor_id"] == owner.id else event["actor_id"] for event in old_events
    ]
    redacted = {"user_id": str(pseudonym), "subject": ERASED, "order_id": None}
    assert [event["ticket"] for event in events[:-1]] == [
        event["ticket"] and event["ticket"] | redacted for event in old_events
    ]


async def test_the_event_says_who_asked_and_whose_it_was_and_shows_the_ticket_erased(desk: Desk) -> None:
    owner, boss = as_customer(), as_supervisor()
    ticket = await open_ticket(desk, owner, order_id=str(uuid4()))
    await erase(desk, owner, boss)
    *_, event = await events_of(desk, ticket)
    assert (event["event_type"], event["position"], event["sequence"]) == ("ticket_erased", 2, 2)
    assert (event["actor_id"], event["actor_role"]) == (boss.id, boss.role)
    assert (event["erased_user_id"], event["is_internal"]) == (owner.id, False)
    left = await look_at(desk, ticket)
    assert event["ticket"]["user_id"] == str(left.user_id) != str(owner.id)
    assert (event["ticket"]["subject"], event["ticket"]["order_id"], event["ticket"]["version"]) == (ERASED, None, 2)
    entry = (await whole(history_of(desk, ticket)))[-1]
    assert (entry.event_type, entry.actor_id) == ("ticket_erased", boss.id)


async def test_nobody_elses_data_is_touched(desk: Desk) -> None:
    owner, other, staff = as_customer(), as_customer(), as_agent()
    await a_life(desk, owner, staff)
    await a_life(desk, other, staff)
    tables = [
        "support_tickets", "ticket_comments", "ticket_events", "ticket_feedback", "ticket_orders", "concealed_texts",
    ]  # fmt: skip
    theirs = "SELECT x.* FROM admin_service.{} x JOIN admin_service.support_tickets t ON t.id = {} WHERE t.user_id = %s"

    async def rows() -> list[list[Row]]:
        return [
            await query(desk, theirs.format(t, "x.id" if t == "support_tickets" else "x.ticket_id"), other.id)
            for t in tables
        ]

    before = await rows()
    assert all(before)
    await erase(desk, owner)
    assert await rows() == before
    keys = await query(desk, "SELECT DISTINCT caller_id FROM admin_service.idempotency_keys")
    assert [row["caller_id"] for row in keys] == [other.id]


async def test_erasing_again_finds_what_is_new_and_gives_it_another_pseudonym(desk: Desk) -> None:
    owner = as_customer()
    first = await open_ticket(desk, owner)
    assert await erase(desk, owner) == Progress(finished=True, erased_tickets=1)
    assert await erase(desk, owner) == Progress(finished=True, erased_tickets=0)
    second = await open_ticket(desk, owner)
    assert await erase(desk, owner) == Progress(finished=True, erased_tickets=1)
    assert len({(await look_at(desk, ticket)).user_id for ticket in (first, second)} | {owner.id}) == 3
    assert (await look_at(desk, first)).version == 2
    rows = await query(desk, "SELECT * FROM admin_service.erasures ORDER BY requested_at, erased_tickets")
    assert {(row["user_id"], row["finished_at"] is not None) for row in rows} == {(None, True)}


async def test_of_whom_nothing_is_known_is_finished_at_once(desk: Desk) -> None:
    assert await erase(desk, as_customer(), as_service()) == Progress(finished=True, erased_tickets=0)


async def test_a_malformed_id_is_refused(desk: Desk) -> None:
    with pytest.raises(InvalidFields):
        await erasure.erase_personal_data(desk.on, as_supervisor(), user_id="somebody")
    assert await query(desk, "SELECT * FROM admin_service.erasures") == []


async def test_the_owner_sees_the_ticket_no_more_and_staff_go_on_with_it(desk: Desk) -> None:
    owner, staff = as_customer(), as_agent()
    ticket = await open_ticket(desk, owner)
    await say(desk, ticket, owner, key="k")
    await erase(desk, owner)
    with pytest.raises(TicketNotFound):
        await say(desk, ticket, owner, key="k")
    with pytest.raises(TicketNotFound):
        await look_at(desk, ticket, owner)
    await say(desk, ticket, staff, "Whatever it was.")
    assert (await move(desk, ticket, "resolved", staff)).status == "resolved"


async def test_a_retried_creation_after_the_erasure_makes_a_new_ticket(desk: Desk) -> None:
    owner = as_customer()
    first = await open_ticket(desk, owner, key="k")
    await erase(desk, owner)
    second = await open_ticket(desk, owner, key="k")
    assert (second.id != first.id, second.user_id) == (True, owner.id)


async def test_a_creation_for_the_user_that_a_service_retries_gets_the_erased_ticket(desk: Desk) -> None:
    owner, app = as_customer(), as_service()
    first = await open_ticket(desk, app, user_id=str(owner.id), key="k")
    await erase(desk, owner)
    again = await open_ticket(desk, app, user_id=str(owner.id), key="k")
    assert (again.id, again.subject) == (first.id, ERASED)


async def test_what_an_owner_does_as_staff_on_an_own_ticket_is_theirs_no_more(desk: Desk) -> None:
    owner = as_agent()
    ticket = await open_ticket(desk, owner)
    await say(desk, ticket, owner)
    await note(desk, ticket)
    await erase(desk, owner)
    assert traces(desk.dsn, owner.id).get(str(owner.id)) == {"admin_service.ticket_events.erased_user_id"}


# --- Others at the same time ------------------------------------------------------------------------------------------


async def test_eight_sweepers_and_two_callers_erase_each_ticket_once(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A call whose time is up, or that meets others too often, answers that it is not finished; so it would be on a busy
    # machine.
    monkeypatch.setattr(erasure, "CALL_SECONDS", 50.0)
    monkeypatch.setattr(erasure, "MOST_PAUSES", 1_000)
    owner, other, staff = as_customer(), as_customer(), as_agent()
    for person in (owner, other):
        for _ in range(60):
            ticket = await open_ticket(desk, person)
            await say(desk, ticket, staff)
    async with asyncio.timeout(60):
        results = await asyncio.gather(
            *(erase(desk, person) for person in (owner, owner, other)),
            *(erasure.go_on_erasing(desk.on, desk.clock.now, NEVER_OVER) for _ in range(8)),
        )
    assert results[:3] == [Progress(finished=True, erased_tickets=60)] * 3
    events = await query(
        desk,
        "SELECT ticket_id, array_agg(sequence ORDER BY sequence) AS sequences,"
        " count(*) FILTER (WHERE event_type = 'ticket_erased') AS erasures"
        " FROM admin_service.ticket_events GROUP BY ticket_id",
    )
    assert len(events) == 120
    assert all((row["sequences"], row["erasures"]) == ([1, 2, 3], 1) for row in events)
    assert len({ticket.user_id for ticket in await whole(all_tickets(desk, staff), [100])}) == 2


async def test_whoever_comments_or_opens_tickets_meanwhile_is_erased_or_comes_after(desk: Desk) -> None:
    chance, owner, staff = dice("erasure among writers"), as_customer(), as_agent()
    tickets = [await open_ticket(desk, owner, subject="Marzipan") for _ in range(30)]
    stop = asyncio.Event()
    told: list[UUID] = []

    async def go_on_writing() -> None:
        while not stop.is_set():
            ticket, author = chance.choice(tickets), chance.choice([owner, staff])
            try:
                told.append((await say(desk, ticket, author, "Marzipan")).id)
            except TicketNotFound:
                await asyncio.sleep(0)

    async def enough() -> bool:
        return len(told) >= 50

    writers = [asyncio.create_task(go_on_writing()) for _ in range(6)]
    await until(enough)
    progress = await erase(desk, owner)
    while not progress.finished:
        progress = await erase(desk, owner)
    stop.set()
    await asyncio.gather(*writers)
    assert progress.erased_tickets == 30
    assert traces(desk.dsn, owner.id) == {str(owner.id): {"admin_service.ticket_events.erased_user_id"}}
    # Staff may write about an erased ticket; of what was there before its erasure nothing is left.
    left = await query(
        desk,
        "SELECT comment, said.author_role FROM admin_service.ticket_comments AS comment"
        " JOIN admin_service.ticket_events AS said ON said.comment_id = comment.id"
        " JOIN admin_service.ticket_events AS gone"
        " ON gone.ticket_id = comment.ticket_id AND gone.event_type = 'ticket_erased'"
        " WHERE comment.comment <> %s AND (said.position < gone.position OR said.author_role = 'customer')",
        ERASED,
    )
    assert left == []
    ((comments,),) = [row.values() for row in await query(desk, "SELECT count(*) FROM admin_service.ticket_comments")]
    assert comments == len(told)


async def test_a_ticket_that_was_written_on_since_it_was_listed_is_listed_anew_first(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = as_customer()
    ticket = await open_ticket(desk, owner)
    real, ran = desk.db.fetch_one, list[str]()

    async def fetch_after_a_comment(*args: Any) -> Any:  # noqa: ANN401 - as the real one
        if args[0] is statements.ERASE_TICKET:
            if not ran:
                monkeypatch.setattr(desk.db, "fetch_one", real)
                await say(desk, ticket, owner, "Marzipan")
                monkeypatch.setattr(desk.db, "fetch_one", fetch_after_a_comment)
            erased = await real(*args)
            ran.append("erased" if erased else "left")
            return erased
        return await real(*args)

    monkeypatch.setattr(desk.db, "fetch_one", fetch_after_a_comment)
    assert await erase(desk, owner) == Progress(finished=True, erased_tickets=1)
    assert ran == ["left", "erased"]
    assert traces(desk.dsn, "Marzipan") == {}


async def test_a_ticket_that_somebody_is_just_writing_on_is_left_for_later(desk: Desk) -> None:
    owner = as_customer()
    busy, free = await open_ticket(desk, owner), await open_ticket(desk, owner)
    async with await psycopg.AsyncConnection.connect(desk.dsn) as writer:
        await writer.execute("SELECT FROM admin_service.support_tickets WHERE id = %s FOR NO KEY UPDATE", [busy.id])
        assert await erase(desk, owner) == Progress(finished=False, erased_tickets=1)
    assert (await look_at(desk, busy)).user_id == owner.id
    assert (await look_at(desk, free)).user_id != owner.id
    assert await erasure.oldest_erasure(desk.on, desk.clock.now) == desk.clock.now
    assert await erasure.go_on_erasing(desk.on, desk.clock.now, NEVER_OVER) == 1
    assert await erasure.oldest_erasure(desk.on, desk.clock.now) is None


async def test_a_relay_that_marks_events_keeps_their_ticket_for_later_and_never_waits_in_a_circle(desk: Desk) -> None:
    owner = as_customer()
    ticket = await open_ticket(desk, owner)
    await say(desk, ticket, owner)
    first, second = await events_of(desk, ticket)
    async with await psycopg.AsyncConnection.connect(desk.dsn) as relay:
        mark = "UPDATE admin_service.ticket_events SET published_at = now() WHERE id = %s"
        await relay.execute(mark, [second["id"]])
        assert await erase(desk, owner) == Progress(finished=False, erased_tickets=0)
        await relay.execute(mark, [first["id"]])
    assert await erase(desk, owner) == Progress(finished=True, erased_tickets=1)
    events = await events_of(desk, ticket)
    assert [event["published_at"] is not None for event in events] == [True, True, False]


async def test_killed_between_two_tickets_another_goes_on_as_the_one_who_asked(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, boss = as_customer(), as_supervisor()
    tickets = [await open_ticket(desk, owner) for _ in range(5)]
    steps = itertools.count()
    real = desk.db.fetch_one

    async def fetch_until_killed(*args: Any) -> Any:  # noqa: ANN401 - as the real one
        if args[0] is statements.ERASE_TICKET and next(steps) == 2:
            raise asyncio.CancelledError
        return await real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(desk.db, "fetch_one", fetch_until_killed)
        with pytest.raises(asyncio.CancelledError):
            await erase(desk, owner, boss)
    erased = [ticket for ticket in tickets if (await look_at(desk, ticket)).user_id != owner.id]
    assert len(erased) == 2
    assert await erasure.go_on_erasing(desk.on, desk.clock.now, NEVER_OVER) == 3
    for ticket in tickets:
        *_, event = await events_of(desk, ticket)
        assert (event["event_type"], event["actor_id"]) == ("ticket_erased", boss.id)
    assert len({(await look_at(desk, ticket)).user_id for ticket in tickets}) == 1


async def test_a_sweep_without_time_left_ends_after_a_ticket(desk: Desk) -> None:
    owner = as_customer()
    for _ in range(3):
        await open_ticket(desk, owner)
    await erasure._begin(desk.on, as_supervisor(), owner.id)
    assert await erasure.go_on_erasing(desk.on, desk.clock.now, lambda: 0.0) == 1
    assert await erasure.go_on_erasing(desk.on, desk.clock.now, NEVER_OVER) == 2


async def test_whoever_is_late_erases_nothing_that_was_written_after_the_end(desk: Desk) -> None:
    owner = as_customer()
    await open_ticket(desk, owner)
    seen_by_a_sweep = await erasure._begin(desk.on, as_supervisor(), owner.id)
    assert await erase(desk, owner) == Progress(finished=True, erased_tickets=1)
    new = await open_ticket(desk, owner)
    assert await erasure._go_on(desk.on, seen_by_a_sweep, NEVER_OVER) == 0
    assert await look_at(desk, new) == new


async def test_a_sweep_erases_at_the_time_at_which_it_does_not_at_which_it_began(desk: Desk) -> None:
    owner, began = as_customer(), desk.clock.now
    await erasure._begin(desk.on, as_supervisor(), owner.id)
    desk.clock.pass_by(timedelta(seconds=10))
    ticket = await open_ticket(desk, owner)
    assert await erasure.go_on_erasing(desk.on, began, NEVER_OVER) == 1
    created, erased = await events_of(desk, ticket)
    assert created["occurred_at"] <= erased["occurred_at"] == desk.clock.now


async def test_what_was_not_sent_before_goes_out_without_the_users_data(desk: Desk) -> None:
    owner = as_customer()
    await open_ticket(desk, owner, subject="Marzipan", order_id=WORDS["order_id"])
    await erase(desk, owner)
    values = {"event_ids": [], "now": desk.clock.now, "shards": list(range(16)), "except": [], "limit": 10}
    with psycopg.connect(desk.dsn, autocommit=True) as connection:
        rows = fetch(connection, statements.MARK_AND_LIST_UNPUBLISHED, values)
    snapshots: Sequence[dict[str, Any]] = [row[-1] for row in rows]
    assert len(snapshots) == 2
    assert {snapshot["subject"] for snapshot in snapshots} == {ERASED}
    assert str(owner.id) not in str(snapshots)


async def test_a_ticket_with_ten_thousand_comments_is_erased_within_a_call(desk: Desk) -> None:
    owner = as_customer()
    ticket = await open_ticket(desk, owner)
    await query(
        desk,
        "INSERT INTO admin_service.ticket_comments (id, ticket_id, user_id, comment, is_internal, created_at,"
        " author_role) SELECT gen_random_uuid(), %s, %s, 'Marzipan', false, now(), 'customer'"
        " FROM generate_series(1, 10000)",
        *(ticket.id, owner.id),
    )
    await query(
        desk,
        "INSERT INTO admin_service.ticket_events (id, ticket_id, position, sequence, change_id, event_type,"
        " occurred_at, actor_id, actor_role, is_internal, ticket) SELECT gen_random_uuid(), ticket_id, n + 1, n + 1,"
        " change_id, 'ticket_commented', occurred_at, actor_id, actor_role, false, ticket"
        " FROM admin_service.ticket_events, generate_series(1, 10000) AS n",
    )
    await query(desk, "UPDATE admin_service.support_tickets SET history_count = 10001, event_count = 10001")
    assert await erase(desk, owner) == Progress(finished=True, erased_tickets=1)
    assert "admin_service.ticket_comments.comment" not in traces(desk.dsn, "Marzipan").get("Marzipan", set())
