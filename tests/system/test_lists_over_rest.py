"""Lists as a frontend reads them: page after page, with filters in the query."""

from collections.abc import Iterator
from itertools import cycle, islice
from typing import Any, NamedTuple

import pytest

from tests.system.doors import Caller, Door, Json
from tests.system.stage import Stage
from tests.system.vocabulary import as_agent, as_customer, as_service, assign, comment, move, open_ticket

PRIORITIES = ["low", "urgent", "medium", "high"]
COUNT = 23
PAGE_SIZE = 7


class Shelf(NamedTuple):
    """A user's tickets in the order of their creation, as they are now; every third is taken over by `agent`."""

    owner: Caller
    agent: Caller
    tickets: list[dict[str, Any]]


@pytest.fixture(scope="module")
def shelf(stage: Stage) -> Shelf:
    owner, agent = as_customer(), as_agent()
    tickets = [open_ticket(stage.rest, owner, priority=word) for word in islice(cycle(PRIORITIES), COUNT)]
    taken = [assign(stage.rest, agent, ticket) for ticket in tickets[::3]]
    now = {ticket["id"]: ticket for ticket in (*tickets, *taken)}
    return Shelf(owner, agent, list(now.values()))


def pages(
    door: Door, call: str, caller: Caller, size: int = PAGE_SIZE, **fields: Json
) -> Iterator[list[dict[str, Any]]]:
    token = ""
    while True:
        page = door.call(call, caller, page_size=size, page_token=token, **fields).resource
        yield next(value for name, value in page.items() if name != "next_page_token")
        token = page["next_page_token"]
        if not token:
            return


def everything(door: Door, call: str, caller: Caller, **fields: Json) -> list[dict[str, Any]]:
    return [row for page in pages(door, call, caller, **fields) for row in page]


def triage(tickets: list[dict[str, Any]]) -> list[dict[str, Any]]:
    ranks = ["urgent", "high", "medium", "low"]
    return sorted(tickets, key=lambda ticket: ranks.index(ticket["priority"]))


def test_pages_are_full_up_to_the_last(rest: Door, shelf: Shelf) -> None:
    sizes = [len(page) for page in pages(rest, "ListMyTickets", shelf.owner)]
    assert sizes == [7, 7, 7, 2]


def test_all_tickets_come_in_triage_order_once_each(rest: Door, shelf: Shelf) -> None:
    listed = everything(rest, "ListTickets", as_service(), user_id=shelf.owner.id)
    assert listed == triage(shelf.tickets)


def test_my_tickets_come_newest_first(rest: Door, shelf: Shelf) -> None:
    assert everything(rest, "ListMyTickets", shelf.owner) == shelf.tickets[::-1]


def test_assigned_tickets_come_in_triage_order(rest: Door, shelf: Shelf) -> None:
    assert everything(rest, "ListAssignedTickets", shelf.agent) == triage(shelf.tickets[::3])


def test_a_filter_may_be_given_several_times(rest: Door, shelf: Shelf) -> None:
    listed = everything(
        rest, "ListTickets", shelf.agent, user_id=shelf.owner.id, priority=["low", "high"], status=["open", "closed"]
    )
    wanted = [t for t in shelf.tickets if t["priority"] in ("low", "high") and t["status"] == "open"]
    assert listed == triage(wanted)
    assert 0 < len(wanted) < COUNT


def test_unassigned_tickets_and_those_of_one_agent_are_the_two_halves(rest: Door, shelf: Shelf) -> None:
    of_nobody = everything(rest, "ListTickets", shelf.agent, user_id=shelf.owner.id, unassigned=True)
    of_agent = everything(rest, "ListTickets", as_service(), assigned_to=shelf.agent.id)
    assert of_agent == triage(shelf.tickets[::3])
    assert triage(sorted(of_nobody + of_agent, key=lambda ticket: str(ticket["id"]))) == triage(shelf.tickets)


def test_created_after_is_inclusive_and_created_before_exclusive(rest: Door, shelf: Shelf) -> None:
    first, last = shelf.tickets[5]["created_at"], shelf.tickets[15]["created_at"]
    listed = everything(
        rest, "ListTickets", shelf.agent, user_id=shelf.owner.id, created_after=first, created_before=last
    )
    assert listed == triage(shelf.tickets[5:15])


def test_tickets_that_arrive_meanwhile_neither_skip_nor_repeat_others(rest: Door) -> None:
    owner = as_customer()
    there = [open_ticket(rest, owner)["id"] for _ in range(2 * PAGE_SIZE)]
    seen: list[str] = []
    for page in pages(rest, "ListMyTickets", owner, size=5):
        seen += [ticket["id"] for ticket in page]
        open_ticket(rest, owner)
    assert seen == there[::-1]


def test_the_page_size_may_change_from_page_to_page(rest: Door, shelf: Shelf) -> None:
    first = rest.call("ListMyTickets", shelf.owner, page_size=2).resource
    second = rest.call("ListMyTickets", shelf.owner, page_token=first["next_page_token"]).resource
    assert first["tickets"] + second["tickets"] == shelf.tickets[::-1][:22]


def test_comments_and_history_are_paged_too(rest: Door) -> None:
    owner, agent = as_customer(), as_agent()
    ticket = open_ticket(rest, owner)
    written = [comment(rest, owner, ticket, comment=f"number {i}") for i in range(16)]
    move(rest, agent, ticket, "resolved")

    assert everything(rest, "ListComments", owner, ticket_id=ticket["id"]) == written[::-1]
    history = everything(rest, "ListTicketHistory", owner, ticket_id=ticket["id"])
    assert [entry["sequence"] for entry in history] == list(range(1, 20))


def refusal_of(door: Door, call: str, caller: Caller, token: str, **fields: Json) -> tuple[int, str, list[str]]:
    answer = door.call(call, caller, page_token=token, **fields)
    assert answer.code, answer
    return answer.code, answer.reason, answer.bad_fields


def test_a_token_is_good_for_its_own_list_only(rest: Door, shelf: Shelf) -> None:
    mine: Json = {"user_id": shelf.owner.id, "priority": ["low", "high"]}
    page = rest.call("ListTickets", shelf.agent, page_size=2, **mine).resource
    token: str = page["next_page_token"]
    refused = (3, "INVALID_FIELDS", ["page_token"])

    assert refusal_of(rest, "ListTickets", shelf.agent, token, user_id=shelf.owner.id) == refused
    assert refusal_of(rest, "ListTickets", shelf.agent, token, **{**mine, "priority": ["low"]}) == refused
    assert refusal_of(rest, "ListTickets", as_agent(), token, **mine) == refused
    assert refusal_of(rest, "ListAssignedTickets", shelf.agent, token) == refused
    assert refusal_of(rest, "ListTickets", shelf.agent, token[:-1], **mine) == refused
    swapped = token[:5] + ("A" if token[5] != "A" else "B") + token[6:]
    assert refusal_of(rest, "ListTickets", shelf.agent, swapped, **mine) == refused
    assert rest.call("ListTickets", shelf.agent, page_size=2, page_token=token, **mine).code == 0
