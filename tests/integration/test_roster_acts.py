"""The roster on PostgreSQL: entries, availability, and that nobody is assigned more than they can bear."""

import asyncio
from datetime import timedelta
from uuid import UUID, uuid4

import pytest

from server.domain.callers import Caller, Role
from server.domain.roster import Agent
from server.errors import (
    ActionNotAllowed,
    AgentAtCapacity,
    AgentNotActive,
    AgentNotFound,
    InvalidFields,
    ServiceError,
)
from server.usecases import roster
from server.usecases.lists import PageRequest
from tests.integration.staffing import hire, look_up, on_the_roster, set_off, ticket_of
from tests.integration.vocabulary import (
    START,
    Desk,
    as_agent,
    as_supervisor,
    assign,
    events_of,
    look_at,
    move,
    open_ticket,
    say,
    types_of,
    whole,
)

HOUR = timedelta(hours=1)


def itself(agent: Agent) -> Caller:
    return Caller(agent.id, Role.SUPPORT_AGENT)


# --- Entries ----------------------------------------------------------------------------------------------------------


async def test_a_new_entry_has_the_defaults_and_takes_on_work(desk: Desk) -> None:
    agent = await roster.set_agent(
        desk.on, agent_id=str(uuid4()), display_name=" Ada\r\n", role=None, tier=None, capacity=None, active=None
    )
    assert agent == Agent(
        agent.id, "Ada", "support_agent", 1, 20, True, "available", None, START, START, START, open_tickets=0
    )
    assert await look_up(desk, agent) == agent


async def test_a_changed_entry_keeps_the_availability_and_the_beginning(desk: Desk) -> None:
    agent = await hire(desk)
    gone = await set_off(desk, agent, until=START + HOUR)
    desk.clock.pass_by(timedelta(minutes=1))
    changed = await hire(desk, agent.id, display_name="Grace", role="support_supervisor", tier=5, capacity=0)
    assert changed == gone._replace(
        display_name="Grace", role="support_supervisor", tier=5, capacity=0, updated_at=desk.clock()
    )


async def test_the_same_entry_again_changes_nothing(desk: Desk) -> None:
    agent = await hire(desk)
    desk.clock.pass_by(HOUR)
    assert await hire(desk, agent.id) == agent


async def test_every_bad_field_of_an_entry_is_named(desk: Desk) -> None:
    with pytest.raises(InvalidFields) as refused:
        await roster.set_agent(
            desk.on, agent_id="x", display_name=" ", role="customer", tier=6, capacity=1_001, active=None
        )
    assert [v.field for v in refused.value.violations] == ["agent_id", "display_name", "role", "tier", "capacity"]
    with pytest.raises(InvalidFields, match="agent_id"):
        await hire(desk, UUID(int=0))


async def test_whoever_is_not_on_the_roster_is_not_found(desk: Desk) -> None:
    with pytest.raises(AgentNotFound):
        await roster.get_agent(desk.on, str(uuid4()))
    with pytest.raises(InvalidFields):
        await roster.get_agent(desk.on, "x")


async def test_twenty_entries_of_one_person_at_once_leave_one_of_them(desk: Desk) -> None:
    agent_id = uuid4()
    answers = await asyncio.gather(*(hire(desk, agent_id, capacity=number) for number in range(20)))
    assert [agent.id for agent in await whole(on_the_roster(desk))] == [agent_id]
    assert await look_up(desk, answers[0]) in answers


# --- Availability -----------------------------------------------------------------------------------------------------


async def test_an_absence_ends_by_itself(desk: Desk) -> None:
    agent = await hire(desk)
    gone = await set_off(desk, agent, until=START + HOUR)
    assert (gone.availability, gone.away_until) == ("away", START + HOUR)
    desk.clock.pass_by(HOUR - timedelta(microseconds=1))
    assert await look_up(desk, agent) == gone
    desk.clock.pass_by(timedelta(microseconds=1))
    back = await look_up(desk, agent)
    assert (back.availability, back.away_until, back.availability_since) == ("available", None, START + HOUR)
    assert await set_off(desk, agent, "available") == back


async def test_saying_what_is_so_changes_nothing_and_another_end_is_no_new_absence(desk: Desk) -> None:
    agent = await hire(desk)
    assert await set_off(desk, agent, "available") == agent
    gone = await set_off(desk, agent)
    desk.clock.pass_by(HOUR)
    assert await set_off(desk, agent) == gone
    longer = await set_off(desk, agent, until=START + 3 * HOUR)
    assert longer == gone._replace(away_until=START + 3 * HOUR, updated_at=desk.clock())
    busy = await set_off(desk, agent, "busy")
    assert (busy.availability, busy.away_until, busy.availability_since) == ("busy", None, desk.clock())


async def test_agents_speak_for_themselves_and_supervisors_for_anyone(desk: Desk) -> None:
    agent = await hire(desk)
    assert (await set_off(desk, agent, "busy", by=itself(agent))).availability == "busy"
    assert (await set_off(desk, agent, "away", by=as_supervisor())).availability == "away"
    with pytest.raises(ActionNotAllowed):
        await set_off(desk, agent, "busy", by=as_agent())
    with pytest.raises(AgentNotFound):
        await set_off(desk, agent._replace(id=uuid4()), "busy", by=as_agent())


async def test_every_bad_field_of_an_availability_is_named(desk: Desk) -> None:
    agent = await hire(desk)
    for availability, until, bad in [
        ("asleep", START + HOUR, ["availability"]),
        ("busy", START + HOUR, ["away_until"]),
        ("away", START, ["away_until"]),
        (None, START, ["availability", "away_until"]),
    ]:
        with pytest.raises(InvalidFields) as refused:
            await set_off(desk, agent, availability, until)
        assert [v.field for v in refused.value.violations] == bad
    assert await look_up(desk, agent) == agent


async def test_of_many_availabilities_at_once_each_is_written_over_the_one_before(desk: Desk) -> None:
    agent = await hire(desk)
    answers = await asyncio.gather(*(set_off(desk, agent, word) for word in ["busy", "away", "available"] * 7))
    assert (await look_up(desk, agent)) in answers


# --- The list ---------------------------------------------------------------------------------------------------------


async def test_the_list_has_everybody_by_id_with_their_tickets_page_by_page(desk: Desk) -> None:
    agents = [await hire(desk) for _ in range(5)]
    for agent, count in zip(agents, range(5), strict=True):
        for _ in range(count):
            await ticket_of(desk, agent)
    listed = await whole(on_the_roster(desk), [2])
    assert [agent.id for agent in listed] == sorted(agent.id for agent in agents)
    by_id = {agent.id: agent.open_tickets for agent in listed}
    assert [by_id[agent.id] for agent in agents] == list(range(5))


async def test_what_is_resolved_is_no_open_ticket(desk: Desk) -> None:
    agent = await hire(desk)
    tickets = [await ticket_of(desk, agent) for _ in range(3)]
    await move(desk, tickets[0], "resolved")
    await move(desk, tickets[1], "open")
    assert (await look_up(desk, agent)).open_tickets == 2


async def test_the_filters_go_by_what_is_so_now(desk: Desk) -> None:
    back, gone, busy, former = [await hire(desk) for _ in range(4)]
    await set_off(desk, back, until=START + HOUR)
    await set_off(desk, gone, until=START + 2 * HOUR)
    await set_off(desk, busy, "busy")
    await hire(desk, former.id, active=False)
    desk.clock.pass_by(HOUR)
    for words, with_inactive, expected in [
        ((), False, {back, gone, busy}),
        ((), True, {back, gone, busy, former}),
        (("available",), False, {back}),
        (("available",), True, {back, former}),
        (("away", "busy"), True, {gone, busy}),
    ]:
        listed = await whole(on_the_roster(desk, *words, with_inactive=with_inactive))
        assert {agent.id for agent in listed} == {agent.id for agent in expected}


async def test_a_page_token_is_bound_to_caller_and_filters(desk: Desk) -> None:
    for _ in range(3):
        await hire(desk)
    caller = as_agent()
    token = (await on_the_roster(desk, caller=caller)(PageRequest(1, ""))).next_page_token
    assert (await on_the_roster(desk, caller=caller)(PageRequest(1, token))).rows
    for turn in (on_the_roster(desk), on_the_roster(desk, "away", caller=caller)):
        with pytest.raises(InvalidFields, match="page_token"):
            await turn(PageRequest(1, token))


# --- Capacity ---------------------------------------------------------------------------------------------------------


async def test_nobody_is_assigned_more_than_they_can_bear(desk: Desk) -> None:
    agent = await hire(desk, capacity=2)
    mine = [await ticket_of(desk, agent) for _ in range(2)]
    another = await open_ticket(desk)
    with pytest.raises(AgentAtCapacity) as refused:
        await assign(desk, another, agent.id)
    assert refused.value.facts == {"assigned_to": str(agent.id)}
    assert await look_at(desk, another) == another
    assert types_of(await events_of(desk, another)) == ["ticket_created"]
    assert await assign(desk, mine[0], agent.id) == mine[0]
    await move(desk, mine[0], "resolved")
    assert (await assign(desk, another, agent.id)).assigned_to == agent.id


async def test_a_reopened_ticket_may_be_one_too_many_and_then_there_are_no_more(desk: Desk) -> None:
    agent = await hire(desk, capacity=1)
    first = await move(desk, await ticket_of(desk, agent), "resolved")
    second = await ticket_of(desk, agent)
    await say(desk, first)
    assert (await look_up(desk, agent)).open_tickets == 2
    await move(desk, second, "resolved")
    with pytest.raises(AgentAtCapacity):
        await ticket_of(desk, agent)


async def test_a_ticket_that_goes_back_to_open_stays_theirs_and_counts(desk: Desk) -> None:
    agent = await hire(desk, capacity=1)
    back = await move(desk, await ticket_of(desk, agent), "open")
    assert back.assigned_to == agent.id
    with pytest.raises(AgentAtCapacity):
        await ticket_of(desk, agent)


async def test_nothing_is_assigned_to_whoever_does_not_work_here_any_more(desk: Desk) -> None:
    agent = await hire(desk)
    kept = await ticket_of(desk, agent)
    await hire(desk, agent.id, active=False)
    with pytest.raises(AgentNotActive) as refused:
        await ticket_of(desk, agent)
    assert refused.value.facts == {"assigned_to": str(agent.id)}
    assert (await look_at(desk, kept)).assigned_to == agent.id


async def test_a_smaller_capacity_takes_nothing_away(desk: Desk) -> None:
    agent = await hire(desk)
    for _ in range(3):
        await ticket_of(desk, agent)
    smaller = await hire(desk, agent.id, capacity=1)
    assert (smaller.open_tickets, smaller.capacity) == (3, 1)


async def test_whoever_is_not_on_the_roster_has_no_bound(desk: Desk) -> None:
    somebody = uuid4()
    for _ in range(5):
        assert (await assign(desk, await open_ticket(desk), somebody)).assigned_to == somebody


async def test_of_many_assignments_at_once_as_many_go_well_as_there_is_room(desk: Desk) -> None:
    agent = await hire(desk, capacity=7)
    tickets = [await open_ticket(desk) for _ in range(20)]
    answers = await asyncio.gather(*(assign(desk, t, agent.id) for t in tickets), return_exceptions=True)
    refused = [answer for answer in answers if isinstance(answer, ServiceError)]
    assert (len(answers) - len(refused), {error.reason for error in refused}) == (7, {"AGENT_AT_CAPACITY"})
    assert (await look_up(desk, agent)).open_tickets == 7
