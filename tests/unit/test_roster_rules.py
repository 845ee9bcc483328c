"""The rules of the roster: who takes on work at a moment, what an availability changes, who is given a ticket."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.domain import attention, permissions, roster
from server.domain.attention import Patience
from server.domain.callers import ITSELF, Role
from server.domain.events import EventType, Reason
from server.domain.lifecycle import attends, change_status, comment
from server.domain.roster import Agent, Availability, StaffRole
from server.domain.tickets import Priority, Status
from server.domain.validation import Fields
from server.errors import ActionNotAllowed, InvalidFields
from tests.unit.vocabulary import AGENT, NOW, a_caller, a_ticket, an_agent, the_owner

HOUR = timedelta(hours=1)


def somebody(**values: Any) -> Agent:  # noqa: ANN401
    """An entry of the roster, with other `values` where given."""
    agent = Agent(AGENT, "Ada", "support_agent", 1, 20, True, "available", None, NOW - HOUR, NOW - HOUR, NOW - HOUR, 0)
    return agent._replace(**values)


_moments = st.integers(-5, 5).map(lambda hours: NOW + hours * HOUR)


@st.composite
def _agents(draw: st.DrawFn) -> Agent:
    availability = draw(st.sampled_from(Availability))
    return somebody(
        id=UUID(int=draw(st.integers(1, 9))),
        capacity=draw(st.integers(0, 5)),
        open_tickets=draw(st.integers(0, 7)),
        active=draw(st.booleans()),
        availability=availability,
        away_until=draw(st.none() | _moments) if availability is Availability.AWAY else None,
        availability_since=draw(_moments),
    )


_rosters = st.lists(_agents(), max_size=8, unique_by=lambda agent: agent.id)


# --- At a moment ------------------------------------------------------------------------------------------------------


@given(_agents(), _moments)
def test_an_absence_with_an_end_is_over_from_that_end_on(agent: Agent, now: datetime) -> None:
    at = agent.at(now)
    over = agent.away_until is not None and agent.away_until <= now
    assert (at == agent) is not over
    if over:
        assert (at.availability, at.away_until, at.availability_since) == ("available", None, agent.away_until)
    assert at.at(now) == at


@given(_agents())
def test_nobody_can_bear_less_than_nothing(agent: Agent) -> None:
    assert agent.spare == max(0, agent.capacity - agent.open_tickets)


# --- A new availability -----------------------------------------------------------------------------------------------


@given(_agents(), st.sampled_from(Availability), st.none() | _moments, _moments)
def test_a_new_availability_holds_from_now_on_and_the_same_one_goes_on(
    agent: Agent, wanted: Availability, until: datetime | None, now: datetime
) -> None:
    until = until if wanted is Availability.AWAY and until and until > now else None
    before, changed = agent.at(now), roster.with_availability(agent, wanted, until, now)
    if changed is None:
        assert (before.availability, before.away_until) == (wanted, until)
        return
    assert (changed.availability, changed.away_until, changed.updated_at) == (wanted, until, now)
    assert changed.availability_since == (before.availability_since if before.availability == wanted else now)
    assert roster.with_availability(changed, wanted, until, now) is None
    others = {"availability", "away_until", "availability_since", "updated_at"}
    assert all(getattr(changed, name) == getattr(agent, name) for name in Agent._fields if name not in others)


@pytest.mark.parametrize("role", ["support_agent", "support_supervisor"])
def test_agents_speak_for_themselves_and_supervisors_for_anyone(role: str) -> None:
    caller = a_caller(role)
    permissions.require_availability_choice(caller, caller.id)
    if role == Role.SUPPORT_SUPERVISOR:
        permissions.require_availability_choice(caller, UUID(int=5))
    else:
        with pytest.raises(ActionNotAllowed):
            permissions.require_availability_choice(caller, UUID(int=5))


# --- Who is given a ticket --------------------------------------------------------------------------------------------


@given(_rosters, st.none() | st.integers(1, 9).map(lambda n: UUID(int=n)), _moments)
def test_a_ticket_goes_to_who_takes_on_work_and_can_bear_most(
    agents: Sequence[Agent], but: UUID | None, now: datetime
) -> None:
    willing = [
        agent
        for agent in agents
        if agent.id != but and agent.active and agent.open_tickets < agent.capacity
        if agent.at(now).availability == "available"
    ]
    chosen = roster.choose(agents, but, now)
    assert (chosen is None) is (not willing)
    if chosen is not None:
        assert chosen in willing
        assert all((chosen.spare, other.id) >= (other.spare, chosen.id) for other in willing)


@given(_rosters, st.randoms())
def test_the_choice_does_not_depend_on_the_order_of_the_roster(agents: list[Agent], chance: Any) -> None:  # noqa: ANN401
    chosen = roster.choose(agents, None, NOW)
    chance.shuffle(agents)
    assert roster.choose(agents, None, NOW) == chosen


@given(_rosters)
def test_giving_one_after_the_other_fills_everybody_up_and_nobody_beyond(agents: list[Agent]) -> None:
    by_id = {agent.id: agent for agent in agents}
    room = sum(agent.spare for agent in agents if roster.takes_on_work(agent, NOW))
    for _ in range(room):
        chosen = roster.choose(by_id.values(), None, NOW)
        assert chosen is not None
        by_id[chosen.id] = chosen._replace(open_tickets=chosen.open_tickets + 1)
    assert roster.choose(by_id.values(), None, NOW) is None
    assert all(agent.open_tickets <= max(agent.capacity, by_id[agent.id].capacity) for agent in agents if agent.spare)


# --- Fields -----------------------------------------------------------------------------------------------------------


def read(**values: Any) -> roster.Entry:  # noqa: ANN401
    fields = Fields()
    usual: dict[str, Any] = {"agent_id": str(AGENT), "display_name": "Ada"}
    unsaid: dict[str, Any] = dict.fromkeys(("role", "tier", "capacity", "active"))
    entry = roster.read_entry(fields, **usual | unsaid | values)
    fields.check()
    return entry


def test_what_is_not_said_of_somebody_has_a_default() -> None:
    assert read() == (AGENT, "Ada", StaffRole.SUPPORT_AGENT, 1, 20, True)
    assert read(tier=5, capacity=0, active=False, role="support_supervisor")[2:] == ("support_supervisor", 5, 0, False)


@pytest.mark.parametrize(
    "bad",
    [
        {"agent_id": ""},
        {"agent_id": str(UUID(int=0))},
        {"display_name": "\u200b"},
        {"display_name": "a" * 201},
        {"display_name": "a\x00b"},
        {"role": "customer"},
        {"role": "99"},
        {"tier": 0},
        {"tier": 6},
        {"capacity": -1},
        {"capacity": 1_001},
    ],
    ids=str,
)
def test_a_bad_field_of_an_entry_is_named(bad: dict[str, Any]) -> None:
    with pytest.raises(InvalidFields) as refused:
        read(**bad)
    assert [violation.field for violation in refused.value.violations] == list(bad)


@pytest.mark.parametrize("hours", [-1, 0, 1])
@pytest.mark.parametrize("wanted", [*Availability, None])
def test_an_end_goes_with_an_absence_and_lies_ahead(wanted: str | None, hours: int) -> None:
    fields = Fields()
    roster.check_absence(fields, wanted, NOW + hours * HOUR, NOW)
    roster.check_absence(fields, wanted, None, NOW)
    if hours > 0 and wanted in ("away", None):
        fields.check()
    else:
        with pytest.raises(InvalidFields, match="away_until"):
            fields.check()


# --- Attention --------------------------------------------------------------------------------------------------------


@given(st.sampled_from(Priority), st.integers(1, 10**6), _moments)
def test_a_ticket_is_due_when_its_own_patience_is_over(priority: Priority, seconds: int, now: datetime) -> None:
    patience: Patience = {one: timedelta(days=999) for one in Priority} | {priority: timedelta(seconds=seconds)}
    assert attention.last_due(patience, priority, now) == now - timedelta(seconds=seconds)


def test_a_flag_tells_why() -> None:
    (draft,) = attention.FLAGGED
    assert (draft.event_type, draft.reason) == (EventType.TICKET_FLAGGED, Reason.UNATTENDED)


def test_staff_attend_by_whatever_they_do_and_the_owner_by_ending_or_reopening() -> None:
    ticket, done = a_ticket(), a_ticket(status="resolved")
    assert attends(ticket, an_agent(), None)
    assert not attends(ticket, the_owner(), None)
    assert not attends(ticket, ITSELF, None)
    assert attends(ticket, the_owner(), change_status(ticket, Status.CLOSED, None, the_owner(), NOW))
    assert attends(done, the_owner(), comment(done, the_owner(), is_internal=False, reopens=True, now=NOW))
