"""The state machine of a ticket, held against the contract's sentences."""

from datetime import timedelta
from itertools import pairwise, product
from typing import NamedTuple
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.domain import lifecycle
from server.domain.callers import ITSELF, Caller
from server.domain.events import EventDraft
from server.domain.lifecycle import Change
from server.domain.tickets import Status, Ticket
from server.errors import IllegalTransition, ServiceError, TicketClosed, TicketNotAssignable, VersionMismatch
from tests.unit.vocabulary import (
    AGENT,
    NOW,
    STATUSES,
    SUPERVISOR,
    a_caller,
    a_supervisor,
    a_ticket,
    after,
    an_agent,
    said,
    the_owner,
    types_of,
)

# "open → in_progress, resolved, closed; in_progress → open, resolved, closed; resolved → in_progress, closed;
# closed is final."
ALLOWED = {
    ("open", "in_progress"),
    ("open", "resolved"),
    ("open", "closed"),
    ("in_progress", "open"),
    ("in_progress", "resolved"),
    ("in_progress", "closed"),
    ("resolved", "in_progress"),
    ("resolved", "closed"),
}
PAIRS = list(product(STATUSES, STATUSES))


def move(ticket: Ticket, wanted: str, caller: Caller | None = None, notes: str | None = None) -> Change | None:
    return lifecycle.change_status(ticket, Status(wanted), notes, caller or an_agent(), NOW)


def take(ticket: Ticket, assignee: UUID = AGENT, caller: Caller | None = None) -> Change | None:
    return lifecycle.assign(ticket, assignee, lifecycle.assigned_by(caller or an_agent(), assignee))


def say(ticket: Ticket, caller: Caller, *, internal: bool = False, reopens: bool = True) -> Change | None:
    return lifecycle.comment(ticket, caller, is_internal=internal, reopens=reopens, now=NOW)


@pytest.mark.parametrize(("current", "wanted"), [pair for pair in PAIRS if pair in ALLOWED])
def test_every_allowed_step_leads_to_the_status_asked_for(current: str, wanted: str) -> None:
    change = move(a_ticket(status=current), wanted)
    assert change is not None
    assert change.status == wanted


@pytest.mark.parametrize(("current", "wanted"), [pair for pair in PAIRS if pair not in ALLOWED and pair[0] != pair[1]])
def test_every_other_step_is_refused_and_names_both_ends(current: str, wanted: str) -> None:
    ticket = a_ticket(status=current)
    with pytest.raises(IllegalTransition) as refusal:
        move(ticket, wanted)
    assert refusal.value.facts == {"from": current, "to": wanted, "ticket_id": str(ticket.id)}


@pytest.mark.parametrize("status", STATUSES)
def test_asking_for_the_present_status_changes_nothing(status: str) -> None:
    assert move(a_ticket(status=status), status, notes="again" if status == "resolved" else None) is None


def test_a_resolution_keeps_its_time_and_its_notes() -> None:
    change = move(a_ticket(), "resolved", notes="Refunded.")
    assert change is not None
    assert (change.resolved_at, change.resolution_notes) == (NOW, "Refunded.")


def test_a_resolution_without_notes_drops_those_of_the_one_before() -> None:
    change = move(a_ticket(status="in_progress", resolution_notes="old"), "resolved")
    assert change is not None
    assert change.resolution_notes is None


def test_a_reopening_clears_the_time_of_the_resolution() -> None:
    change = move(a_ticket(status="resolved"), "in_progress")
    assert change is not None
    assert change.resolved_at is None


def test_a_closing_keeps_the_time_of_the_resolution() -> None:
    resolved = a_ticket(status="resolved")
    change = move(resolved, "closed")
    assert change is not None
    assert change.resolved_at == resolved.resolved_at


def test_a_change_of_status_keeps_the_assignee() -> None:
    change = move(a_ticket(status="in_progress", assigned_to=AGENT), "open")
    assert change is not None
    assert change.assigned_to == AGENT


@pytest.mark.parametrize(
    ("current", "wanted", "expected"),
    [
        ("open", "in_progress", ["ticket_status_changed"]),
        ("in_progress", "open", ["ticket_status_changed"]),
        ("open", "resolved", ["ticket_status_changed", "ticket_resolved"]),
        ("resolved", "closed", ["ticket_status_changed", "ticket_closed"]),
    ],
)
def test_a_resolution_and_a_closing_have_an_event_beside_the_change(
    current: str, wanted: str, expected: list[str]
) -> None:
    assert types_of(move(a_ticket(status=current), wanted)) == expected


def test_a_closing_by_the_owner_says_so_in_both_events() -> None:
    change = move(a_ticket(), "closed", the_owner())
    assert change is not None
    assert [said(draft) for draft in change.events] == [
        {"event_type": "ticket_status_changed", "from_status": "open", "to_status": "closed", "reason": "by_owner"},
        {"event_type": "ticket_closed", "reason": "by_owner"},
    ]


def test_a_closing_by_staff_says_so() -> None:
    change = move(a_ticket(), "closed")
    assert change is not None
    assert {draft.reason for draft in change.events} == {"by_staff"}


def test_staff_who_close_a_ticket_of_their_own_act_as_its_owner() -> None:
    change = move(a_ticket(user_id=AGENT), "closed", an_agent())
    assert change is not None
    assert {draft.reason for draft in change.events} == {"by_owner"}


@pytest.mark.parametrize(("notes", "has_notes"), [("Refunded.", True), (None, False)])
def test_the_resolution_event_says_whether_there_are_notes_but_not_what(notes: str | None, *, has_notes: bool) -> None:
    change = move(a_ticket(), "resolved", notes=notes)
    assert change is not None
    assert said(change.events[1]) == {"event_type": "ticket_resolved", "has_resolution_notes": has_notes}
    assert "Refunded." not in repr(change.events)


def test_assigning_an_open_ticket_starts_its_progress_in_the_same_change() -> None:
    change = take(a_ticket())
    assert change is not None
    assert (change.status, change.assigned_to) == ("in_progress", AGENT)
    assert [said(draft) for draft in change.events] == [
        {"event_type": "ticket_assigned", "assigned_to": AGENT, "reason": "self_assigned"},
        {
            "event_type": "ticket_status_changed",
            "from_status": "open",
            "to_status": "in_progress",
            "reason": "assignment",
        },
    ]


def test_handing_over_a_ticket_in_progress_names_who_had_it() -> None:
    change = take(a_ticket(status="in_progress", assigned_to=AGENT), SUPERVISOR, a_supervisor())
    assert change is not None
    assert [said(draft) for draft in change.events] == [
        {
            "event_type": "ticket_assigned",
            "assigned_to": SUPERVISOR,
            "previous_assignee": AGENT,
            "reason": "self_assigned",
        }
    ]


def test_a_supervisor_who_names_somebody_else_is_the_reason() -> None:
    change = take(a_ticket(), AGENT, a_supervisor())
    assert change is not None
    assert change.events[0].reason == "by_supervisor"


@pytest.mark.parametrize("status", ["open", "in_progress"])
def test_assigning_to_the_present_assignee_changes_nothing(status: str) -> None:
    assert take(a_ticket(status=status, assigned_to=AGENT)) is None


@pytest.mark.parametrize("status", ["resolved", "closed"])
@pytest.mark.parametrize("present", [None, AGENT])
def test_a_finished_ticket_takes_no_assignee_not_even_its_present_one(status: str, present: UUID | None) -> None:
    with pytest.raises(TicketNotAssignable) as refusal:
        take(a_ticket(status=status, assigned_to=present))
    assert refusal.value.facts["status"] == status


@pytest.mark.parametrize("role", ["customer", "restaurant", "driver"])
def test_a_users_comment_on_a_resolved_ticket_reopens_it(role: str) -> None:
    change = say(a_ticket(status="resolved"), the_owner(role))
    assert change is not None
    assert (change.status, change.resolved_at) == ("in_progress", None)
    assert [said(draft) for draft in change.events] == [
        {
            "event_type": "ticket_status_changed",
            "from_status": "resolved",
            "to_status": "in_progress",
            "reason": "comment",
        }
    ]


def test_reopening_by_comment_can_be_switched_off() -> None:
    assert say(a_ticket(status="resolved"), the_owner(), reopens=False) is None


@pytest.mark.parametrize("internal", [True, False])
def test_staff_comments_reopen_nothing(*, internal: bool) -> None:
    assert say(a_ticket(status="resolved"), an_agent(), internal=internal) is None


@pytest.mark.parametrize("status", ["open", "in_progress"])
def test_a_comment_on_an_unfinished_ticket_changes_nothing_in_it(status: str) -> None:
    assert say(a_ticket(status=status), the_owner()) is None


@pytest.mark.parametrize("caller", [the_owner(), an_agent()], ids=["owner", "agent"])
def test_a_closed_ticket_takes_no_public_comment(caller: Caller) -> None:
    with pytest.raises(TicketClosed):
        say(a_ticket(status="closed"), caller)


def test_a_closed_ticket_takes_internal_notes() -> None:
    assert say(a_ticket(status="closed"), an_agent(), internal=True) is None


THREE_DAYS = timedelta(days=3)


@pytest.mark.parametrize(("quiet_for", "closes"), [(THREE_DAYS, True), (THREE_DAYS - timedelta(microseconds=1), False)])
def test_a_resolved_ticket_on_which_nobody_says_anything_closes_when_the_time_is_up(
    quiet_for: timedelta, *, closes: bool
) -> None:
    change = lifecycle.close_quiet(a_ticket(status="resolved"), NOW - quiet_for, THREE_DAYS, NOW)
    assert types_of(change) == (["ticket_status_changed", "ticket_closed"] if closes else [])


@pytest.mark.parametrize("status", ["open", "in_progress", "closed"])
def test_only_a_resolved_ticket_closes_by_itself(status: str) -> None:
    assert lifecycle.close_quiet(a_ticket(status=status), NOW - 2 * THREE_DAYS, THREE_DAYS, NOW) is None


def test_a_ticket_that_closes_by_itself_says_so_and_keeps_its_resolution() -> None:
    ticket = a_ticket(status="resolved", assigned_to=AGENT)
    change = lifecycle.close_quiet(ticket, NOW - THREE_DAYS, THREE_DAYS, NOW)
    assert change is not None
    assert change[:4] == ("closed", AGENT, ticket.resolved_at, ticket.resolution_notes)
    assert {draft.reason for draft in change.events} == {"auto"}
    assert not lifecycle.attends(ticket, ITSELF, change)


@pytest.mark.parametrize("expected", [1, 3])
def test_another_version_than_expected_is_refused_with_both_numbers(expected: int) -> None:
    ticket = a_ticket(version=2)
    with pytest.raises(VersionMismatch) as refusal:
        lifecycle.expect_version(ticket, expected)
    assert refusal.value.facts == {
        "ticket_id": str(ticket.id),
        "version": "2",
        "expected_version": str(expected),
    }


@pytest.mark.parametrize("expected", [2, None])
def test_the_expected_version_and_no_expectation_pass(expected: int | None) -> None:
    lifecycle.expect_version(a_ticket(version=2), expected)


# --- Any sequence of actions ------------------------------------------------------------------------------------------


Action = tuple[str, object, str | None, Caller]


class Step(NamedTuple):
    """A ticket before and after an accepted action; the change is None where nothing changed."""

    before: Ticket
    change: Change | None
    after: Ticket


_callers = st.sampled_from([the_owner(), an_agent(), a_supervisor()])
_assignees = st.sampled_from([AGENT, SUPERVISOR])
_actions: st.SearchStrategy[Action] = st.one_of(
    st.tuples(st.just("status"), st.sampled_from(STATUSES), st.none() | st.just("notes"), _callers),
    st.tuples(st.just("assign"), _assignees, st.none(), _callers),
    st.tuples(st.just("comment"), st.booleans(), st.none(), _callers),
)


def act(ticket: Ticket, action: Action, minutes: int) -> Step | None:
    """One action on the ticket, or None where it was refused."""
    kind, what, notes, caller = action
    now = NOW + timedelta(minutes=minutes)
    try:
        if kind == "status":
            notes = notes if what == "resolved" else None
            change = lifecycle.change_status(ticket, Status(str(what)), notes, caller, now)
        elif kind == "assign":
            assert isinstance(what, UUID)
            change = lifecycle.assign(ticket, what, lifecycle.assigned_by(caller, what))
        else:
            change = lifecycle.comment(ticket, caller, is_internal=bool(what), reopens=True, now=now)
    except ServiceError:
        return None
    return Step(ticket, change, after(ticket, change, now))


def walk(actions: list[Action]) -> list[Step]:
    """The steps of those actions that were accepted, from a new ticket on."""
    ticket, steps = a_ticket(), []
    for minutes, action in enumerate(actions):
        step = act(ticket, action, minutes)
        if step is not None:
            steps.append(step)
            ticket = step.after
    return steps


walks = st.lists(_actions, max_size=25).map(walk)


@given(walks)
def test_a_time_of_resolution_is_there_exactly_where_a_ticket_is_resolved_or_was_closed_so(steps: list[Step]) -> None:
    for before, _, now in steps:
        if now.status == "closed":
            assert now.resolved_at == before.resolved_at
        else:
            assert (now.resolved_at is not None) == (now.status == "resolved")


@given(walks)
def test_nothing_moves_a_closed_ticket(steps: list[Step]) -> None:
    assert all(step.change is None for step in steps if step.before.status == "closed")


@given(walks)
def test_every_change_is_one_version_and_has_at_least_one_event(steps: list[Step]) -> None:
    for before, change, now in steps:
        assert now.version - before.version == (1 if change else 0)
        assert change is None or change.events


@given(walks)
def test_a_change_that_changes_nothing_is_none(steps: list[Step]) -> None:
    kept = ("status", "assigned_to", "resolved_at")
    for before, change, now in steps:
        if change:
            assert any(getattr(before, name) != getattr(now, name) for name in kept)


@given(walks)
def test_the_events_tell_each_change_of_status_and_nothing_else_of_it(steps: list[Step]) -> None:
    for before, change, now in steps:
        told = [(d.from_status, d.to_status) for d in _of_type(change, "ticket_status_changed")]
        assert told == ([(before.status, now.status)] if before.status != now.status else [])


@given(walks)
def test_the_events_tell_each_change_of_assignee_and_nothing_else_of_it(steps: list[Step]) -> None:
    for before, change, now in steps:
        told = [(d.previous_assignee, d.assigned_to) for d in _of_type(change, "ticket_assigned")]
        assert told == ([(before.assigned_to, now.assigned_to)] if before.assigned_to != now.assigned_to else [])


@given(walks)
def test_an_event_of_a_status_follows_the_change_to_it(steps: list[Step]) -> None:
    for _, change, now in steps:
        for earlier, later in pairwise(types_of(change)):
            assert (earlier, later) in {
                ("ticket_status_changed", "ticket_resolved"),
                ("ticket_status_changed", "ticket_closed"),
                ("ticket_assigned", "ticket_status_changed"),
            }
        assert ("ticket_closed" in types_of(change)) == (bool(change) and now.status == "closed")


@given(walks)
def test_every_step_is_one_of_the_state_machine(steps: list[Step]) -> None:
    for before, _, now in steps:
        assert before.status == now.status or (before.status, now.status) in ALLOWED


def _of_type(change: Change | None, event_type: str) -> list[EventDraft]:
    return [draft for draft in change.events if draft.event_type == event_type] if change else []


def test_a_stranger_among_the_staff_is_staff() -> None:
    change = move(a_ticket(), "in_progress", a_caller("support_supervisor"))
    assert change is not None
    assert change.events[0].reason == "by_staff"
