"""Each act on a ticket: its effect, the rows that tell of it, and that the two come together or not at all."""

from datetime import timedelta
from uuid import UUID, uuid4

import pytest

from server.domain.callers import Caller
from server.domain.tickets import Ticket
from server.errors import (
    ActionNotAllowed,
    IllegalTransition,
    InvalidFields,
    ServiceError,
    TicketNotAssignable,
    TicketNotFound,
    VersionMismatch,
)
from tests.integration.vocabulary import (
    START,
    Desk,
    as_agent,
    as_customer,
    as_service,
    as_supervisor,
    assign,
    comments_on,
    counts,
    events_of,
    first_page,
    history_of,
    look_at,
    move,
    open_ticket,
    owner_of,
    said,
    say,
    types_of,
)

SNAPSHOT = {
    "id", "user_id", "order_id", "subject", "status", "priority", "assigned_to", "resolved_at", "created_at",
    "updated_at", "version",
    "flagged_at",
}  # fmt: skip


async def test_a_new_ticket_is_open_of_medium_priority_and_the_callers_own(desk: Desk) -> None:
    caller = as_customer()
    ticket = await open_ticket(desk, caller, subject="  Cold soup ", description="One\r\ntwo")
    assert ticket == Ticket(
        ticket.id, caller.id, None, "Cold soup", "One\ntwo", "open", "medium", None, None, None, START, START, 1
    )
    assert ticket.id.version == 7
    assert await look_at(desk, ticket) == ticket


async def test_a_creation_is_told_by_the_tickets_first_event(desk: Desk) -> None:
    caller = as_customer()
    ticket = await open_ticket(desk, caller)
    (event,) = await events_of(desk, ticket)
    assert (event["event_type"], event["sequence"], event["position"]) == ("ticket_created", 1, 1)
    assert (event["actor_id"], event["actor_role"], event["occurred_at"]) == (caller.id, "customer", START)
    assert said(event) == {}
    assert event["published_at"] is None
    assert event["id"].version == 7


async def test_what_is_given_is_what_the_ticket_has(desk: Desk) -> None:
    order, owner = uuid4(), uuid4()
    ticket = await open_ticket(
        desk, as_service(), order_id=str(order).upper(), priority="urgent", user_id=str(owner).upper()
    )
    assert (ticket.order_id, ticket.priority, ticket.user_id) == (order, "urgent", owner)


@pytest.mark.parametrize("caller", [as_agent(), as_supervisor(), as_service()], ids=lambda caller: caller.role)
async def test_staff_and_services_create_tickets_for_users(desk: Desk, caller: Caller) -> None:
    owner = as_customer()
    ticket = await open_ticket(desk, caller, user_id=str(owner.id))
    assert await look_at(desk, ticket, owner) == ticket
    (event,) = await events_of(desk, ticket)
    assert event["actor_id"] == caller.id


async def test_a_user_creates_no_ticket_for_another(desk: Desk) -> None:
    with pytest.raises(ActionNotAllowed):
        await open_ticket(desk, as_customer(), user_id=str(uuid4()))
    assert (await counts(desk))["support_tickets"] == 0


async def test_every_bad_field_is_named_and_nothing_is_written(desk: Desk) -> None:
    with pytest.raises(InvalidFields) as refusal:
        await open_ticket(desk, subject="", description="\0", order_id="x", priority="top", user_id="y", key=" ")
    assert {violation.field for violation in refusal.value.violations} == {
        "subject", "description", "order_id", "priority", "user_id", "idempotency-key",
    }  # fmt: skip
    assert set((await counts(desk)).values()) == {0}


@pytest.mark.parametrize("text", ["%s $1 %% '; --", "漢字 🍜 «»", "a" * 10_000, "\\x00", "line\n\ttab"])
async def test_a_text_comes_back_as_it_went_in(desk: Desk, text: str) -> None:
    ticket = await open_ticket(desk, description=text)
    assert (await look_at(desk, ticket)).description == text


async def test_an_assignment_starts_progress_as_one_change_with_two_events(desk: Desk) -> None:
    supervisor, agent = as_supervisor(), as_agent()
    ticket = await open_ticket(desk)
    desk.clock.pass_by(timedelta(minutes=5))
    changed = await assign(desk, ticket, agent.id, supervisor)
    assert changed == ticket._replace(
        status="in_progress", assigned_to=agent.id, version=2, updated_at=START + timedelta(minutes=5)
    )
    _, assigned, moved = await events_of(desk, ticket)
    assert said(assigned) == {"assigned_to": agent.id, "reason": "by_supervisor"}
    assert said(moved) == {"from_status": "open", "to_status": "in_progress", "reason": "assignment"}
    assert types_of([assigned, moved]) == ["ticket_assigned", "ticket_status_changed"]


async def test_events_of_one_change_share_id_moment_and_actor_and_count_on(desk: Desk) -> None:
    ticket = await open_ticket(desk)
    desk.clock.pass_by(timedelta(seconds=1))
    agent = as_agent()
    await move(desk, ticket, "resolved", agent, notes="Refunded.")
    created, *events = await events_of(desk, ticket)
    assert [event["sequence"] for event in events] == [event["position"] for event in events] == [2, 3]
    assert len({(e["change_id"], e["occurred_at"], e["actor_id"], e["actor_role"]) for e in events}) == 1
    assert events[0]["change_id"] != created["change_id"]
    assert len({event["id"] for event in [created, *events]}) == 3


async def test_every_event_has_the_ticket_as_the_change_left_it_without_the_long_texts(desk: Desk) -> None:
    ticket = await open_ticket(desk, description="A secret.")
    resolved = await move(desk, ticket, "resolved", notes="Another secret.")
    created, *events = await events_of(desk, ticket)
    for event in (created, *events):
        assert set(event["ticket"]) == SNAPSHOT
        assert "secret" not in repr(event)
    assert created["ticket"]["status"] == "open"
    assert {event["ticket"]["version"] for event in events} == {resolved.version}
    assert {event["ticket"]["status"] for event in events} == {"resolved"}
    assert UUID(created["ticket"]["user_id"]) == ticket.user_id


async def test_a_resolution_keeps_time_and_notes_and_a_reopening_clears_the_time(desk: Desk) -> None:
    ticket = await open_ticket(desk)
    desk.clock.pass_by(timedelta(hours=1))
    resolved = await move(desk, ticket, "resolved", notes=" Refunded. ")
    assert (resolved.resolved_at, resolved.resolution_notes) == (START + timedelta(hours=1), "Refunded.")
    reopened = await move(desk, ticket, "in_progress")
    assert (reopened.status, reopened.resolved_at, reopened.version) == ("in_progress", None, 3)


@pytest.mark.parametrize(("notes", "has_notes"), [("Refunded.", True), (None, False)])
async def test_the_resolution_event_tells_whether_there_are_notes(
    desk: Desk, notes: str | None, *, has_notes: bool
) -> None:
    ticket = await open_ticket(desk)
    await move(desk, ticket, "resolved", notes=notes)
    assert said((await events_of(desk, ticket))[-1]) == {"has_resolution_notes": has_notes}


async def test_the_owner_closes_an_own_ticket_and_the_event_says_who(desk: Desk) -> None:
    ticket = await open_ticket(desk)
    assert (await move(desk, ticket, "closed", owner_of(ticket))).status == "closed"
    closing = (await events_of(desk, ticket))[-2:]
    assert types_of(closing) == ["ticket_status_changed", "ticket_closed"]
    assert {event["reason"] for event in closing} == {"by_owner"}


@pytest.mark.parametrize("status", ["open", "in_progress", "resolved"])
async def test_the_owner_asks_for_no_other_status(desk: Desk, status: str) -> None:
    ticket = await open_ticket(desk)
    with pytest.raises(ActionNotAllowed):
        await move(desk, ticket, status, owner_of(ticket))


async def test_notes_with_another_status_than_resolved_are_refused(desk: Desk) -> None:
    ticket = await open_ticket(desk)
    with pytest.raises(InvalidFields, match="resolution_notes"):
        await move(desk, ticket, "closed", notes="Done.")


async def test_a_status_that_is_unknown_is_a_bad_field(desk: Desk) -> None:
    ticket = await open_ticket(desk)
    with pytest.raises(InvalidFields, match="status"):
        await move(desk, ticket, None)


async def test_the_present_status_and_the_present_assignee_change_and_tell_nothing(desk: Desk) -> None:
    agent = as_agent()
    ticket = await assign(desk, await open_ticket(desk), agent.id)
    before = await counts(desk)
    desk.clock.pass_by(timedelta(hours=1))
    assert await move(desk, ticket, "in_progress") == ticket
    assert await assign(desk, ticket, agent.id) == ticket
    assert await counts(desk) == before


async def test_a_refused_change_leaves_ticket_and_history_as_they_were(desk: Desk) -> None:
    ticket = await move(desk, await open_ticket(desk), "closed")
    before = await counts(desk)
    for refused in (move(desk, ticket, "open"), assign(desk, ticket, uuid4()), say(desk, ticket)):
        with pytest.raises(ServiceError):
            await refused
    assert await counts(desk) == before
    assert await look_at(desk, ticket) == ticket


async def test_a_step_that_the_machine_does_not_have_names_both_ends(desk: Desk) -> None:
    ticket = await move(desk, await open_ticket(desk), "resolved")
    with pytest.raises(IllegalTransition) as refusal:
        await move(desk, ticket, "open")
    assert refusal.value.facts == {"from": "resolved", "to": "open", "ticket_id": str(ticket.id)}


@pytest.mark.parametrize("status", ["resolved", "closed"])
async def test_a_finished_ticket_is_not_assigned_not_even_to_its_assignee(desk: Desk, status: str) -> None:
    agent = as_agent()
    ticket = await assign(desk, await open_ticket(desk), agent.id)
    await move(desk, ticket, status)
    with pytest.raises(TicketNotAssignable):
        await assign(desk, ticket, agent.id)


async def test_an_agent_takes_a_ticket_but_gives_it_to_nobody(desk: Desk) -> None:
    agent = as_agent()
    ticket = await open_ticket(desk)
    with pytest.raises(ActionNotAllowed):
        await assign(desk, ticket, uuid4(), agent)
    assert (await assign(desk, ticket, agent.id, agent)).assigned_to == agent.id


async def test_a_handover_names_the_assignee_before(desk: Desk) -> None:
    first, second = as_agent(), as_agent()
    ticket = await assign(desk, await open_ticket(desk), first.id, first)
    changed = await assign(desk, ticket, second.id, second)
    assert (changed.status, changed.version) == ("in_progress", 3)
    handover = (await events_of(desk, ticket))[-1]
    assert said(handover) == {
        "assigned_to": second.id, "previous_assignee": first.id, "reason": "self_assigned",
    }  # fmt: skip


async def test_the_expected_version_lets_through_and_counts_on(desk: Desk) -> None:
    ticket = await open_ticket(desk)
    assert (await move(desk, ticket, "in_progress", expected=1)).version == 2
    assert (await assign(desk, ticket, uuid4(), expected=2)).version == 3


@pytest.mark.parametrize("expected", [1, 3])
async def test_another_version_is_refused_also_where_nothing_would_change(desk: Desk, expected: int) -> None:
    agent = as_agent()
    ticket = await assign(desk, await open_ticket(desk), agent.id)
    before = await counts(desk)
    for refused in (
        move(desk, ticket, "resolved", expected=expected),
        move(desk, ticket, "in_progress", expected=expected),
        assign(desk, ticket, uuid4(), expected=expected),
        assign(desk, ticket, agent.id, expected=expected),
    ):
        with pytest.raises(VersionMismatch) as refusal:
            await refused
        assert refusal.value.facts["version"] == "2"
    assert await counts(desk) == before
    assert await look_at(desk, ticket) == ticket


async def test_a_version_that_no_ticket_can_have_is_a_bad_field(desk: Desk) -> None:
    ticket = await open_ticket(desk)
    with pytest.raises(InvalidFields, match="expected_version"):
        await move(desk, ticket, "closed", expected=0)


async def test_a_stranger_cannot_tell_my_ticket_from_a_missing_one(desk: Desk) -> None:
    stranger = as_customer()
    mine = await open_ticket(desk)
    missing = mine._replace(id=uuid4())
    for ticket in (mine, missing):
        for refused in (
            look_at(desk, ticket, stranger),
            move(desk, ticket, "closed", stranger),
            move(desk, ticket, "open", stranger),
            say(desk, ticket, stranger),
            first_page(comments_on(desk, ticket, stranger)),
            first_page(history_of(desk, ticket, stranger)),
        ):
            with pytest.raises(TicketNotFound) as refusal:
                await refused
            assert refusal.value.facts == {"ticket_id": str(ticket.id)}


async def test_staff_are_told_that_a_ticket_is_missing(desk: Desk) -> None:
    missing = (await open_ticket(desk))._replace(id=uuid4())
    for refused in (look_at(desk, missing), move(desk, missing, "closed"), assign(desk, missing, uuid4())):
        with pytest.raises(TicketNotFound):
            await refused


async def test_services_see_every_ticket(desk: Desk) -> None:
    ticket = await open_ticket(desk)
    assert await look_at(desk, ticket, as_service()) == ticket


async def test_a_malformed_id_is_a_bad_field(desk: Desk) -> None:
    with pytest.raises(InvalidFields, match="ticket_id"):
        await look_at(desk, (await open_ticket(desk))._replace(id="0192"))  # type: ignore[arg-type]
