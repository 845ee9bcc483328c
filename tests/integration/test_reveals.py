"""Looking at a text as it was written: an entry in the history, and no other change of the ticket."""

import asyncio
from datetime import timedelta
from uuid import uuid4

import psycopg
import pytest

from server.domain.tickets import Comment, Ticket
from server.errors import CommentNotFound, InvalidFields, TicketNotFound
from server.usecases import reveal
from tests.integration.privacy_acts import erase
from tests.integration.test_concurrent_changes import check_history
from tests.integration.vocabulary import (
    Desk,
    Row,
    as_agent,
    as_customer,
    as_supervisor,
    events_of,
    history_of,
    look_at,
    look_beneath,
    look_beneath_comment,
    move,
    note,
    open_ticket,
    owner_of,
    query,
    say,
    stored_ticket,
    types_of,
    until,
    whole,
)

CARD, PIN = "4111 1111 1111 1111", "my PIN is 4711"


async def row_of(desk: Desk, ticket: Ticket) -> Row:
    (row,) = await query(desk, "SELECT * FROM admin_service.support_tickets WHERE id = %s", ticket.id)
    return row


async def test_a_ticket_is_shown_as_it_was_written_with_the_places_of_what_others_do_not_see(desk: Desk) -> None:
    ticket = await open_ticket(desk, subject=CARD, description=f"{PIN}, all of them")
    resolved = await move(desk, ticket, "resolved", notes=f"{CARD} refunded")
    shown = await look_beneath(desk, ticket)
    assert shown == resolved._replace(
        subject=CARD, description=f"{PIN}, all of them", resolution_notes=f"{CARD} refunded"
    )
    assert [finding["field"] for finding in shown.findings or ()] == ["subject", "description", "resolution_notes"]
    assert await look_at(desk, ticket) == resolved


async def test_texts_that_are_not_masked_are_shown_as_ever(desk: Desk) -> None:
    ticket = await open_ticket(desk, subject="Charged twice", description=PIN)
    assert await look_beneath(desk, ticket) == ticket._replace(description=PIN)


async def test_a_look_is_an_internal_entry_and_moves_nothing_but_the_length_of_the_history(desk: Desk) -> None:
    ticket, supervisor = await open_ticket(desk, description=PIN), as_supervisor()
    before = await row_of(desk, ticket)
    desk.clock.pass_by(timedelta(hours=1))
    await look_beneath(desk, ticket, supervisor)
    entry = (await whole(history_of(desk, ticket)))[-1]
    assert (entry.event_type, entry.is_internal, entry.sequence, entry.position) == ("ticket_revealed", True, None, 2)
    assert (entry.actor_id, entry.actor_role, entry.occurred_at) == (
        supervisor.id, "support_supervisor", desk.clock(),
    )  # fmt: skip
    assert entry.comment_id is None
    assert await row_of(desk, ticket) == before | {"history_count": 2}
    assert types_of(await events_of(desk, ticket)) == ["ticket_created", "ticket_revealed"]
    assert (await events_of(desk, ticket))[-1]["ticket"] is None


async def test_the_owner_is_not_told_who_looked(desk: Desk) -> None:
    ticket = await open_ticket(desk, description=PIN)
    await look_beneath(desk, ticket)
    seen = await whole(history_of(desk, ticket, owner_of(ticket)))
    assert [entry.event_type for entry in seen] == ["ticket_created"]


async def test_a_look_at_what_was_never_masked_is_noted_as_well(desk: Desk) -> None:
    ticket = await open_ticket(desk)
    comment = await say(desk, ticket)
    assert await look_beneath(desk, ticket) == ticket
    assert await look_beneath_comment(desk, comment) == comment
    assert types_of(await events_of(desk, ticket))[2:] == ["ticket_revealed"] * 2


@pytest.mark.parametrize("internal", [True, False])
async def test_a_comment_is_shown_as_it_was_written_and_named_in_the_entry(desk: Desk, *, internal: bool) -> None:
    ticket = await open_ticket(desk, description=PIN)
    other = await note(desk, ticket, CARD)
    comment = await say(desk, ticket, as_agent(), f"He says {PIN}", internal=internal)
    assert await look_beneath_comment(desk, comment) == comment._replace(comment=f"He says {PIN}")
    entry = (await whole(history_of(desk, ticket)))[-1]
    assert (entry.event_type, entry.comment_id, entry.is_internal) == ("ticket_revealed", comment.id, True)
    assert entry.comment_id != other.id


async def test_on_a_closed_ticket_too(desk: Desk) -> None:
    ticket = await open_ticket(desk, description=PIN)
    await move(desk, ticket, "closed")
    assert (await look_beneath(desk, ticket)).description == PIN


async def test_of_a_ticket_or_comment_that_there_is_not_nothing_is_shown_or_noted(desk: Desk) -> None:
    ticket, other = await open_ticket(desk), await open_ticket(desk)
    comment = await say(desk, ticket, text=PIN)
    with pytest.raises(TicketNotFound):
        await look_beneath(desk, stored_ticket())
    with pytest.raises(TicketNotFound):
        await look_beneath_comment(desk, comment._replace(ticket_id=uuid4()))
    for missing in (comment._replace(id=uuid4()), comment._replace(ticket_id=other.id)):
        with pytest.raises(CommentNotFound):
            await look_beneath_comment(desk, missing)
    assert types_of(await events_of(desk, ticket)) == ["ticket_created", "ticket_commented"]
    assert types_of(await events_of(desk, other)) == ["ticket_created"]


async def test_malformed_ids_are_all_named(desk: Desk) -> None:
    with pytest.raises(InvalidFields) as refusal:
        await reveal.reveal_comment(desk.on, as_supervisor(), ticket_id="x", comment_id="y")
    assert [each.field for each in refusal.value.violations] == ["ticket_id", "comment_id"]
    with pytest.raises(InvalidFields):
        await reveal.reveal_ticket(desk.on, as_supervisor(), ticket_id="x")


async def test_after_an_erasure_there_is_nothing_to_reveal(desk: Desk) -> None:
    caller = as_customer()
    ticket = await open_ticket(desk, caller, description=PIN)
    comment = await say(desk, ticket, text=CARD)
    await erase(desk, caller)
    assert (await look_beneath(desk, ticket)).description == "[erased]"
    assert (await look_beneath_comment(desk, comment)).comment == "[erased]"


# --- Many at once -----------------------------------------------------------------------------------------------------


async def test_fifty_looks_at_once_are_fifty_entries(desk: Desk) -> None:
    ticket = await open_ticket(desk, description=PIN)
    comment = await say(desk, ticket, text=CARD)
    supervisors = [as_supervisor() for _ in range(50)]
    looks = [
        look_beneath(desk, ticket, each) if n % 2 else look_beneath_comment(desk, comment, each)
        for n, each in enumerate(supervisors)
    ]
    answers = await asyncio.gather(*looks)
    assert {isinstance(each, Ticket) and each.description for each in answers} == {False, PIN}
    assert {isinstance(each, Comment) and each.comment for each in answers} == {False, CARD}
    entries = await events_of(desk, ticket)
    assert {entry["actor_id"] for entry in entries[2:]} == {each.id for each in supervisors}
    check_history(entries, ticket)


# What a resolution with other notes does, of which somebody who looks meanwhile must see all or nothing.
RESOLVED_AGAIN = """
    WITH concealed AS (UPDATE admin_service.concealed_texts SET text = 'my CVV is 987' WHERE resource_id = %(id)s)
    UPDATE admin_service.support_tickets SET resolution_notes = 'my CVV is ***', version = version + 1,
        findings = '[{"field": "resolution_notes", "kind": "security_code", "start": 10, "length": 3}]'
    WHERE id = %(id)s
"""
WAITING = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%%noted%%'"


async def test_nobody_is_shown_the_original_of_notes_that_are_being_replaced(desk: Desk) -> None:
    ticket = await move(desk, await open_ticket(desk), "resolved", notes=PIN)
    async with await psycopg.AsyncConnection.connect(desk.dsn) as other:
        await other.execute(RESOLVED_AGAIN, {"id": ticket.id})
        look = asyncio.create_task(look_beneath(desk, ticket))

        async def is_waiting() -> bool:
            return bool(await query(desk, WAITING))

        await until(is_waiting)
        await other.commit()
    shown = await look
    assert (shown.resolution_notes, [finding["kind"] for finding in shown.findings or ()]) == (
        "my CVV is 987", ["security_code"],
    )  # fmt: skip
    assert types_of(await events_of(desk, ticket)).count("ticket_revealed") == 1
