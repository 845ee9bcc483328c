"""Comments and internal notes: what they add, what they change, and who reads them."""

from datetime import timedelta

import pytest

from server.domain.tickets import Comment
from server.errors import ActionNotAllowed, InvalidFields, TicketClosed
from tests.integration.vocabulary import (
    START,
    Desk,
    as_agent,
    comments_on,
    counts,
    events_of,
    history_of,
    look_at,
    move,
    note,
    open_ticket,
    owner_of,
    said,
    say,
    types_of,
    whole,
)


async def test_a_comment_says_who_in_which_role_and_when(desk: Desk) -> None:
    ticket = await open_ticket(desk)
    comment = await say(desk, ticket, text=" Still\r\nwaiting. ")
    assert comment == Comment(
        comment.id, ticket.id, ticket.user_id, "Still\nwaiting.", False, START, comment.author_role
    )
    assert comment.author_role == "customer"
    assert comment.id.version == 7


async def test_a_comment_is_an_event_without_its_text_and_no_change_of_the_ticket(desk: Desk) -> None:
    ticket = await open_ticket(desk)
    desk.clock.pass_by(timedelta(minutes=1))
    comment = await say(desk, ticket, as_agent(), "A secret.")
    event = (await events_of(desk, ticket))[-1]
    assert (event["event_type"], event["sequence"]) == ("ticket_commented", 2)
    assert said(event) == {"comment_id": comment.id, "author_role": "support_agent"}
    assert "secret" not in repr(event)
    assert await look_at(desk, ticket) == ticket


async def test_an_internal_note_is_history_but_no_event_and_takes_no_sequence(desk: Desk) -> None:
    ticket = await open_ticket(desk)
    await note(desk, ticket)
    await say(desk, ticket)
    events = await events_of(desk, ticket)
    assert [(e["event_type"], e["position"], e["sequence"], e["is_internal"]) for e in events] == [
        ("ticket_created", 1, 1, False),
        ("ticket_commented", 2, None, True),
        ("ticket_commented", 3, 2, False),
    ]
    assert [event["ticket"] is None for event in events] == [False, True, False]


async def test_a_users_internal_note_is_refused_and_never_made_public(desk: Desk) -> None:
    ticket = await open_ticket(desk)
    with pytest.raises(ActionNotAllowed):
        await say(desk, ticket, internal=True)
    assert (await counts(desk))["ticket_comments"] == 0


async def test_the_owners_comment_reopens_a_resolved_ticket_in_the_same_change(desk: Desk) -> None:
    ticket = await move(desk, await open_ticket(desk), "resolved")
    await say(desk, ticket)
    reopened = await look_at(desk, ticket)
    assert (reopened.status, reopened.resolved_at, reopened.version) == ("in_progress", None, ticket.version + 1)
    commented, moved = (await events_of(desk, ticket))[-2:]
    assert types_of([commented, moved]) == ["ticket_commented", "ticket_status_changed"]
    assert commented["change_id"] == moved["change_id"]
    assert said(moved) == {"from_status": "resolved", "to_status": "in_progress", "reason": "comment"}
    assert [event["sequence"] for event in (commented, moved)] == [4, 5]


async def test_reopening_by_comment_can_be_switched_off(dsn: str) -> None:
    async with Desk.at(dsn, reopen_on_comment=False) as desk:
        ticket = await move(desk, await open_ticket(desk), "resolved")
        await say(desk, ticket)
        assert await look_at(desk, ticket) == ticket


@pytest.mark.parametrize("internal", [True, False])
async def test_staff_comment_on_a_resolved_ticket_without_reopening_it(desk: Desk, *, internal: bool) -> None:
    ticket = await move(desk, await open_ticket(desk), "resolved")
    await say(desk, ticket, as_agent(), internal=internal)
    assert await look_at(desk, ticket) == ticket


async def test_a_closed_ticket_takes_internal_notes_only(desk: Desk) -> None:
    ticket = await move(desk, await open_ticket(desk), "closed")
    for caller in (owner_of(ticket), as_agent()):
        with pytest.raises(TicketClosed):
            await say(desk, ticket, caller)
    await note(desk, ticket)
    assert [comment.is_internal for comment in await whole(comments_on(desk, ticket))] == [True]


@pytest.mark.parametrize("text", ["", " \u2003\n", "a\x1bb", "a" * 10_001])
async def test_a_text_that_breaks_a_rule_is_a_bad_field(desk: Desk, text: str) -> None:
    ticket = await open_ticket(desk)
    with pytest.raises(InvalidFields, match="comment"):
        await say(desk, ticket, text=text)


async def test_comments_are_listed_newest_first_page_by_page(desk: Desk) -> None:
    ticket = await open_ticket(desk)
    said_in_order = []
    for number in range(7):
        # Pairs of comments of the same moment: their ids decide.
        desk.clock.pass_by(timedelta(seconds=number % 2))
        said_in_order.append(await say(desk, ticket, text=f"number {number}"))
    expected = sorted(said_in_order, key=lambda comment: (comment.created_at, comment.id), reverse=True)
    for sizes in ((1,), (2,), (3, 1), (7,), (8,), (0,)):
        assert await whole(comments_on(desk, ticket), sizes) == expected


async def test_the_owner_reads_the_public_ones_and_staff_all_of_them(desk: Desk) -> None:
    ticket = await open_ticket(desk)
    public = [await say(desk, ticket), await say(desk, ticket, as_agent())]
    internal = await note(desk, ticket)
    for sizes in ((1,), (20,)):
        seen = await whole(comments_on(desk, ticket, owner_of(ticket)), sizes)
        assert {comment.id for comment in seen} == {comment.id for comment in public}
        seen = await whole(comments_on(desk, ticket), sizes)
        assert {comment.id for comment in seen} == {comment.id for comment in [*public, internal]}


async def test_history_is_the_rows_of_the_events_oldest_first_page_by_page(desk: Desk) -> None:
    ticket = await open_ticket(desk)
    await move(desk, ticket, "in_progress")
    await note(desk, ticket)
    await move(desk, ticket, "resolved", notes="Refunded.")
    await say(desk, ticket)
    stored = [event["id"] for event in await events_of(desk, ticket)]
    for sizes in ((1,), (2,), (3, 1), (100,)):
        assert [entry.id for entry in await whole(history_of(desk, ticket), sizes)] == stored
    entries = await whole(history_of(desk, ticket))
    assert [(entry.event_type, entry.from_status, entry.to_status) for entry in entries] == [
        ("ticket_created", None, None),
        ("ticket_status_changed", "open", "in_progress"),
        ("ticket_commented", None, None),
        ("ticket_status_changed", "in_progress", "resolved"),
        ("ticket_resolved", None, None),
        ("ticket_commented", None, None),
        ("ticket_status_changed", "resolved", "in_progress"),
    ]


async def test_the_owners_history_leaves_the_internal_entries_out_and_has_no_gap_in_its_sequence(desk: Desk) -> None:
    ticket = await open_ticket(desk)
    await note(desk, ticket)
    await say(desk, ticket)
    await note(desk, ticket)
    for sizes in ((1,), (2,), (20,)):
        entries = await whole(history_of(desk, ticket, owner_of(ticket)), sizes)
        assert [(entry.event_type, entry.sequence) for entry in entries] == [
            ("ticket_created", 1),
            ("ticket_commented", 2),
        ]
    assert [entry.sequence for entry in await whole(history_of(desk, ticket))] == [1, None, 2, None]
