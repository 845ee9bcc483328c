"""Every filter and every combination of them, through each door, held against a list filtered in Python."""

import random
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from itertools import cycle, islice
from typing import Any, NamedTuple

import pytest

from tests.system.doors import Caller, Door, Json
from tests.system.stage import Stage
from tests.system.vocabulary import as_agent, as_customer, as_service, assign, dice, move, open_ticket

STATUSES = ["open", "in_progress", "resolved", "closed"]
PRIORITIES = ["urgent", "high", "medium", "low"]
OFFSETS = [timezone(timedelta(hours=hours, minutes=30)) for hours in (-7, 0, 5)]
COUNT = 24
COMBINATIONS = 40

Ticket = dict[str, Any]


class Shelf(NamedTuple):
    """Two users' tickets in the order of their creation, in every status and priority, some assigned to one of two."""

    owners: list[Caller]
    agents: list[Caller]
    tickets: list[Ticket]

    @property
    def window(self) -> dict[str, str]:
        """The moments between which nobody else created a ticket."""
        last = datetime.fromisoformat(self.tickets[-1]["created_at"]) + timedelta(microseconds=1)
        return {"created_after": self.tickets[0]["created_at"], "created_before": last.isoformat()}


@pytest.fixture(scope="module")
def shelf(stage: Stage) -> Shelf:
    owners, agents = [as_customer(), as_customer()], [as_agent(), as_agent()]
    opened = [
        open_ticket(stage.own_port, owner, priority=priority)
        for owner, priority in islice(zip(cycle([owners[0], *owners]), cycle(PRIORITIES), strict=False), COUNT)
    ]
    return Shelf(owners, agents, [bring_forward(stage, agents, number, ticket) for number, ticket in enumerate(opened)])


def bring_forward(stage: Stage, agents: list[Caller], number: int, ticket: Ticket) -> Ticket:
    """The ticket assigned, or not, and in a status, as its number says; some are open and assigned all the same."""
    assignee = (None, *agents)[number % 3]
    if assignee:
        ticket = assign(stage.own_port, assignee, ticket)
    return move(stage.own_port, as_agent(), ticket, STATUSES[number // 3 % 4])


def passes(ticket: Ticket, fields: dict[str, Any]) -> bool:
    """Whether the ticket passes every filter that is given (contract, section 5)."""
    created = datetime.fromisoformat(ticket["created_at"])
    return (
        ticket["status"] in (fields.get("status") or STATUSES)
        and ticket["priority"] in (fields.get("priority") or PRIORITIES)
        and fields.get("user_id", ticket["user_id"]) == ticket["user_id"]
        and fields.get("assigned_to") in (None, ticket.get("assigned_to"))
        and not (fields.get("unassigned") and "assigned_to" in ticket)
        and ("created_after" not in fields or created >= datetime.fromisoformat(fields["created_after"]))
        and ("created_before" not in fields or created < datetime.fromisoformat(fields["created_before"]))
    )


def triage(tickets: list[Ticket]) -> list[Ticket]:
    return sorted(tickets, key=lambda ticket: PRIORITIES.index(ticket["priority"]))


def listed(door: Door, chance: random.Random, call: str, caller: Caller, **fields: Json) -> Iterator[Ticket]:
    """Every ticket of the list, by pages of any size."""
    token = ""
    while True:
        size = chance.choice([2, 5, 0, 1000])
        page = door.call(call, caller, page_size=size, page_token=token, **fields).resource
        assert len(page["tickets"]) == size or not page["next_page_token"] or size in (0, 1000)
        yield from page["tickets"]
        token = page["next_page_token"]
        if not token:
            return


def some_of(chance: random.Random, words: list[str]) -> list[str]:
    """None, some or all of the words, in any order, some of them twice."""
    return chance.choices(words, k=chance.randrange(4))


def moment(chance: random.Random, ticket: Ticket) -> str:
    """The moment of the ticket's creation, or one just beside it, in some time zone."""
    created = datetime.fromisoformat(ticket["created_at"]) + timedelta(microseconds=chance.randint(-1, 1))
    return created.astimezone(chance.choice(OFFSETS)).isoformat()


def any_filters(chance: random.Random, shelf: Shelf) -> dict[str, Any]:
    """Any combination of the filters of ListTickets that shows none but the shelf's tickets."""
    fields: dict[str, Any] = {
        "status": some_of(chance, STATUSES),
        "priority": some_of(chance, PRIORITIES),
        **chance.choice([{"user_id": chance.choice(shelf.owners).id}, shelf.window]),
        **chance.choice([{}, {"unassigned": False}, {"unassigned": True}, {"assigned_to": shelf.agents[0].id}]),
    }
    for bound in ("created_after", "created_before"):
        if chance.random() < 0.3 and "user_id" in fields:
            fields[bound] = moment(chance, chance.choice(shelf.tickets))
    return fields


def test_any_combination_of_filters_lists_what_passes_all_of_them(stage: Stage, shelf: Shelf) -> None:
    chance, sizes = dice("filters"), []
    for number in range(COMBINATIONS):
        fields = any_filters(chance, shelf)
        door = stage.doors[number % len(stage.doors)]
        expected = triage([ticket for ticket in shelf.tickets if passes(ticket, fields)])
        assert list(listed(door, chance, "ListTickets", as_service(), **fields)) == expected, (door.name, fields)
        sizes.append(len(expected))
    assert len(set(sizes)) > 4, sizes


def test_my_tickets_and_those_assigned_to_me_are_filtered_at_every_door(stage: Stage, shelf: Shelf) -> None:
    chance = dice("my filters")
    for door in stage.doors:
        for _ in range(4):
            status, priority = some_of(chance, STATUSES), some_of(chance, PRIORITIES)
            mine: dict[str, Any] = {"user_id": shelf.owners[0].id, "status": status}
            assert list(listed(door, chance, "ListMyTickets", shelf.owners[0], status=status)) == [
                ticket for ticket in shelf.tickets[::-1] if passes(ticket, mine)
            ], (door.name, status)
            theirs = {"assigned_to": shelf.agents[1].id, "status": status, "priority": priority}
            found = list(listed(door, chance, "ListAssignedTickets", shelf.agents[1], status=status, priority=priority))
            assert found == triage([ticket for ticket in shelf.tickets if passes(ticket, theirs)]), (door.name, theirs)


def test_the_beginning_and_the_end_of_time_are_bounds_too(stage: Stage, shelf: Shelf) -> None:
    always = {"created_after": "0001-01-01T00:00:00Z", "created_before": "9999-12-31T23:59:59.999999999Z"}
    never = {"created_after": always["created_before"], "created_before": always["created_after"]}
    for door in stage.doors:
        for fields, count in ((always, COUNT * 2 // 3), (never, 0)):
            found = door.call("ListTickets", as_service(), user_id=shelf.owners[0].id, page_size=100, **fields)
            assert len(found.resource["tickets"]) == count, (door.name, fields)


CALLS_WITH_TOKENS = ["ListTickets", "ListMyTickets", "ListAssignedTickets"]


@pytest.mark.parametrize("call", CALLS_WITH_TOKENS)
def test_a_token_is_refused_with_other_filters_and_of_another_caller_at_every_door(
    stage: Stage, shelf: Shelf, call: str
) -> None:
    caller = shelf.agents[0]
    if call == "ListMyTickets":
        for _ in range(2):
            open_ticket(stage.own_port, caller)
    for door in stage.doors:
        token = door.call(call, caller, page_size=1).resource["next_page_token"]
        assert door.call(call, caller, page_size=3, page_token=token).code == 0
        others: list[tuple[Caller, dict[str, Any]]] = [(caller, {"status": ["open"]}), (as_agent(), {})]
        for who, fields in others:
            refused = door.call(call, who, page_token=token, **fields)
            assert (refused.code, refused.bad_fields) == (3, ["page_token"]), door.name
        for other in set(CALLS_WITH_TOKENS) - {call}:
            assert door.call(other, caller, page_token=token).bad_fields == ["page_token"], (door.name, other)


def test_a_token_of_the_clients_own_making_is_refused_at_every_door(stage: Stage, shelf: Shelf) -> None:
    caller = shelf.agents[0]
    token = stage.rest.call("ListTickets", caller, page_size=1).resource["next_page_token"]
    for made in (token + "=", token + token, token[::-1], f" {token}", token.lower(), "0", "A" * 4000):
        for door in stage.doors:
            refused = door.call("ListTickets", caller, page_token=made)
            assert (refused.code, refused.bad_fields) == (3, ["page_token"]), (door.name, made)
