"""Lists by keyset pages, held against a list sorted and filtered in Python."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.domain.callers import Caller
from server.domain.tickets import Ticket
from server.errors import InvalidFields
from server.usecases.lists import Page, PageRequest, TicketFilters
from tests.integration.vocabulary import (
    EMPTY,
    START,
    Desk,
    Turn,
    all_tickets,
    as_agent,
    as_customer,
    as_supervisor,
    assigned_tickets,
    by_triage,
    comments_on,
    first_page,
    history_of,
    look_at,
    move,
    my_tickets,
    newest_first,
    note,
    open_ticket,
    owner_of,
    pages,
    put_tickets,
    query,
    say,
    stored_ticket,
    whole,
)

R = TypeVar("R")
Happening = Callable[[], Awaitable[None]]

STATUSES = ("open", "in_progress", "resolved", "closed")
PRIORITIES = ("low", "medium", "high", "urgent")
# Few of each, so that filters match some and moments meet.
USERS = [UUID(int=1), UUID(int=2), UUID(int=3)]
AGENTS = [UUID(int=11), UUID(int=12)]
MOMENTS = [START + timedelta(microseconds=number) for number in range(4)]
ALONE = settings(
    max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], print_blob=True
)

some_tickets = st.lists(
    st.builds(
        stored_ticket,
        id=st.uuids(),
        user_id=st.sampled_from(USERS),
        assigned_to=st.sampled_from([None, *AGENTS]),
        status=st.sampled_from(STATUSES),
        priority=st.sampled_from(PRIORITIES),
        created_at=st.sampled_from(MOMENTS),
    ),
    max_size=25,
    unique_by=lambda ticket: ticket.id,
)
page_sizes = st.lists(st.integers(1, 9), min_size=1, max_size=3)
some_statuses = st.lists(st.sampled_from(STATUSES), max_size=3)
some_priorities = st.lists(st.sampled_from(PRIORITIES), max_size=3)


class Wanted(NamedTuple):
    """The filters of ListTickets, in Python's types."""

    status: list[str]
    priority: list[str]
    user_id: UUID | None
    assigned_to: UUID | None
    unassigned: bool
    created_after: datetime | None
    created_before: datetime | None

    def as_sent(self) -> TicketFilters:
        return TicketFilters(
            self.status,
            self.priority,
            None if self.user_id is None else str(self.user_id),
            None if self.assigned_to is None else str(self.assigned_to),
            self.unassigned,
            as_timestamp(self.created_after),
            as_timestamp(self.created_before),
        )

    def lets_through(self, ticket: Ticket) -> bool:
        return (
            (not self.status or ticket.status in self.status)
            and (not self.priority or ticket.priority in self.priority)
            and self.user_id in (None, ticket.user_id)
            and self.assigned_to in (None, ticket.assigned_to)
            and not (self.unassigned and ticket.assigned_to is not None)
            and (self.created_after is None or ticket.created_at >= self.created_after)
            and (self.created_before is None or ticket.created_at < self.created_before)
        )


def as_timestamp(moment: datetime | None) -> tuple[int, int] | None:
    if moment is None:
        return None
    return int(moment.timestamp()), moment.microsecond * 1000


some_filters = st.builds(
    Wanted,
    some_statuses,
    some_priorities,
    st.none() | st.sampled_from(USERS),
    st.none() | st.sampled_from(AGENTS),
    st.booleans(),
    st.none() | st.sampled_from(MOMENTS),
    st.none() | st.sampled_from(MOMENTS),
).filter(lambda wanted: not (wanted.unassigned and wanted.assigned_to))


async def only(desk: Desk, rows: Sequence[Ticket]) -> None:
    """Make these the only tickets."""
    await query(desk, EMPTY)
    await put_tickets(desk, rows)


async def check_pages(turn: Turn[Ticket], sizes: Sequence[int], expected: Sequence[Ticket]) -> None:
    """Every page but the last is full, and together they are the expected rows in their order."""
    found = await pages(turn, sizes)
    assert [ticket for page in found for ticket in page] == expected
    for number, page in enumerate(found[:-1]):
        assert len(page) == sizes[number % len(sizes)]


@ALONE
@given(some_tickets, some_filters, page_sizes)
async def test_the_pages_of_all_tickets_are_those_of_the_model(
    desk: Desk, rows: list[Ticket], wanted: Wanted, sizes: list[int]
) -> None:
    await only(desk, rows)
    expected = by_triage([ticket for ticket in rows if wanted.lets_through(ticket)])
    await check_pages(all_tickets(desk, as_agent(), wanted.as_sent()), sizes, expected)


@ALONE
@given(some_tickets, some_statuses, some_priorities, page_sizes)
async def test_the_pages_of_assigned_tickets_are_those_of_the_model(
    desk: Desk, rows: list[Ticket], status: list[str], priority: list[str], sizes: list[int]
) -> None:
    await only(desk, rows)
    expected = [
        ticket
        for ticket in by_triage(rows)
        if ticket.assigned_to == AGENTS[0]
        and (not status or ticket.status in status)
        and (not priority or ticket.priority in priority)
    ]
    await check_pages(assigned_tickets(desk, as_agent(AGENTS[0]), status, priority), sizes, expected)


@ALONE
@given(some_tickets, some_statuses, page_sizes)
async def test_the_pages_of_my_tickets_are_those_of_the_model(
    desk: Desk, rows: list[Ticket], status: list[str], sizes: list[int]
) -> None:
    await only(desk, rows)
    mine = [ticket for ticket in rows if ticket.user_id == USERS[0] and (not status or ticket.status in status)]
    await check_pages(my_tickets(desk, as_customer(USERS[0]), status), sizes, newest_first(mine))


@ALONE
@given(some_tickets, some_tickets, some_filters, page_sizes)
async def test_rows_that_arrive_meanwhile_neither_hide_nor_repeat_those_that_were_there(
    desk: Desk, rows: list[Ticket], arriving: list[Ticket], wanted: Wanted, sizes: list[int]
) -> None:
    await only(desk, rows)
    there = {ticket.id for ticket in rows}
    late = [ticket for ticket in arriving if ticket.id not in there]
    turn = all_tickets(desk, as_agent(), wanted.as_sent())

    async def turn_while_they_arrive(page: PageRequest) -> Any:  # noqa: ANN401
        found = await turn(page)
        await put_tickets(desk, [late.pop() for _ in range(min(3, len(late)))])
        return found

    seen = [ticket for ticket in await whole(turn_while_they_arrive, sizes) if ticket.id in there]
    assert seen == by_triage([ticket for ticket in rows if wanted.lets_through(ticket)])


async def test_tickets_that_change_meanwhile_are_neither_skipped_nor_repeated(desk: Desk) -> None:
    await put_tickets(
        desk, [stored_ticket(created_at=START + timedelta(seconds=n), user_id=USERS[0]) for n in range(9)]
    )
    for turn in (all_tickets(desk, as_agent()), my_tickets(desk, as_customer(USERS[0]))):
        there = await whole(turn)
        assert [ticket.id for ticket in await whole(after_each_page(turn, [change_all(desk, there)] * 5), [2])] == [
            ticket.id for ticket in there
        ]


def change_all(desk: Desk, rows: Sequence[Ticket]) -> Happening:
    """Moves each ticket to the other of two statuses."""

    async def happen() -> None:
        for ticket in rows:
            present = await look_at(desk, ticket)
            await move(desk, ticket, "in_progress" if present.status == "open" else "open")

    return happen


def after_each_page(turn: Turn[R], happenings: list[Happening]) -> Turn[R]:
    """The same list, with something happening between one page and the next."""
    left = list(happenings)

    async def turned(page: PageRequest) -> Page[R]:
        found = await turn(page)
        if left:
            await left.pop()()
        return found

    return turned


async def test_comments_and_history_that_arrive_meanwhile_neither_hide_nor_repeat_those_that_were_there(
    desk: Desk,
) -> None:
    ticket = await open_ticket(desk)
    for number in range(7):
        await say(desk, ticket, text=f"number {number}")
        await note(desk, ticket)

    async def arrive() -> None:
        await say(desk, ticket)
        await note(desk, ticket)

    for reader in (READER, owner_of(ticket)):
        comments = await whole(comments_on(desk, ticket, reader), [100])
        seen = await whole(after_each_page(comments_on(desk, ticket, reader), [arrive] * 3), [2])
        assert seen == comments
        entries = await whole(history_of(desk, ticket, reader), [100])
        read = await whole(after_each_page(history_of(desk, ticket, reader), [arrive] * 3), [2])
        assert read[: len(entries)] == entries
        assert len(set(read)) == len(read) > len(entries)


async def test_assigned_tickets_that_arrive_meanwhile_neither_hide_nor_repeat_those_that_were_there(desk: Desk) -> None:
    await put_tickets(desk, [stored_ticket(assigned_to=READER.id, priority=word) for word in PRIORITIES * 3])
    there = await whole(assigned_tickets(desk, READER))

    async def arrive() -> None:
        await put_tickets(desk, [stored_ticket(assigned_to=READER.id, priority=word) for word in PRIORITIES])

    seen = await whole(after_each_page(assigned_tickets(desk, READER), [arrive] * 3), [2])
    assert [ticket for ticket in seen if ticket in there] == there


async def test_a_page_has_20_rows_unless_asked_and_100_at_most(desk: Desk) -> None:
    await put_tickets(desk, [stored_ticket(created_at=START + timedelta(seconds=n)) for n in range(130)])
    turn = all_tickets(desk, as_agent())
    assert [len(page) for page in await pages(turn, [0])] == [20] * 6 + [10]
    assert [len(page) for page in await pages(turn, [1000])] == [100, 30]


@pytest.mark.parametrize("count", [0, 1, 19, 20])
async def test_the_last_page_has_no_token_even_when_it_is_full(desk: Desk, count: int) -> None:
    await put_tickets(desk, [stored_ticket() for _ in range(count)])
    page = await first_page(all_tickets(desk, as_agent()), 20)
    assert (len(page.rows), page.next_page_token) == (count, "")


async def test_a_moment_within_a_second_bounds_inclusively_below_and_exclusively_above(desk: Desk) -> None:
    await put_tickets(desk, [stored_ticket(created_at=moment) for moment in MOMENTS])
    wanted = Wanted([], [], None, None, False, MOMENTS[1], MOMENTS[3])
    found = await whole(all_tickets(desk, as_agent(), wanted.as_sent()))
    assert [ticket.created_at for ticket in found] == MOMENTS[1:3]


async def test_a_bound_between_two_microseconds_is_not_moved_to_one_of_them(desk: Desk) -> None:
    await put_tickets(desk, [stored_ticket(created_at=moment) for moment in MOMENTS])
    seconds, nanos = as_timestamp(MOMENTS[1]) or (0, 0)
    later = (seconds, nanos + 1)
    after = await whole(all_tickets(desk, as_agent(), TicketFilters(created_after=later)))
    before = await whole(all_tickets(desk, as_agent(), TicketFilters(created_before=later)))
    assert [ticket.created_at for ticket in after] == MOMENTS[2:]
    assert [ticket.created_at for ticket in before] == MOMENTS[:2]


async def test_bad_filters_are_named_all_at_once(desk: Desk) -> None:
    filters = TicketFilters(
        status=["open", None],
        priority=[None],
        user_id="x",
        assigned_to="y",
        unassigned=True,
        created_after=(2**62, 0),
        created_before=(-(2**62), 0),
    )
    with pytest.raises(InvalidFields) as refusal:
        await all_tickets(desk, as_agent(), filters)(PageRequest(-1, "garbage"))
    assert {violation.field for violation in refusal.value.violations} == {
        "status", "priority", "user_id", "assigned_to", "unassigned", "created_after", "created_before", "page_size",
        "page_token",
    }  # fmt: skip


# --- What a token is bound to -----------------------------------------------------------------------------------------


@pytest.fixture
async def token(desk: Desk) -> str:
    """The token of the second page of all tickets, for `READER`, without filters."""
    await put_tickets(desk, [stored_ticket(assigned_to=READER.id, user_id=READER.id) for _ in range(9)])
    return (await first_page(all_tickets(desk, READER), 3)).next_page_token


READER = as_agent()


async def test_a_token_goes_on_with_another_page_size(desk: Desk, token: str) -> None:
    assert len((await all_tickets(desk, READER)(PageRequest(100, token))).rows) == 6


@pytest.mark.parametrize(
    "filters",
    [
        TicketFilters(status=["open"]),
        TicketFilters(priority=["medium"]),
        TicketFilters(user_id=str(READER.id)),
        TicketFilters(assigned_to=str(READER.id)),
        TicketFilters(unassigned=True),
        TicketFilters(created_after=(0, 0)),
        TicketFilters(created_before=(4_000_000_000, 0)),
    ],
)
async def test_a_token_of_other_filters_is_refused(desk: Desk, token: str, filters: TicketFilters) -> None:
    await refused(all_tickets(desk, READER, filters), token)


@pytest.mark.parametrize("caller", [as_agent(), as_supervisor()], ids=["agent", "supervisor"])
async def test_a_token_of_another_caller_is_refused(desk: Desk, token: str, caller: Caller) -> None:
    await refused(all_tickets(desk, caller), token)


async def test_a_token_of_another_list_is_refused(desk: Desk, token: str) -> None:
    ticket = await open_ticket(desk)
    for turn in (my_tickets(desk, READER), assigned_tickets(desk, READER)):
        await refused(turn, token)
    for of_ticket in (comments_on(desk, ticket, READER), history_of(desk, ticket, READER)):
        await refused(of_ticket, token)


async def test_a_token_of_another_ticket_is_refused(desk: Desk) -> None:
    first, second = await open_ticket(desk), await open_ticket(desk)
    for _ in range(3):
        await say(desk, first)
    comments = await first_page(comments_on(desk, first, READER), 1)
    entries = await first_page(history_of(desk, first, READER), 1)
    await refused(comments_on(desk, second, READER), comments.next_page_token)
    await refused(history_of(desk, second, READER), entries.next_page_token)


async def test_a_token_of_the_same_person_in_a_role_that_sees_more_is_refused(desk: Desk) -> None:
    ticket = await open_ticket(desk, as_customer(READER.id))
    for _ in range(3):
        await note(desk, ticket)
        await say(desk, ticket)
    turns: list[tuple[Turn[Any], Turn[Any]]] = [
        (comments_on(desk, ticket, READER), comments_on(desk, ticket, owner_of(ticket))),
        (history_of(desk, ticket, READER), history_of(desk, ticket, owner_of(ticket))),
    ]
    for all_of_them, public in turns:
        await refused(public, (await first_page(all_of_them, 1)).next_page_token)
        await refused(all_of_them, (await first_page(public, 1)).next_page_token)


async def test_filters_in_another_order_are_the_same_filters(desk: Desk, token: str) -> None:
    del token
    one = all_tickets(desk, READER, TicketFilters(status=["open", "closed"]))
    other = all_tickets(desk, READER, TicketFilters(status=["closed", "open", "open"]))
    page = await first_page(one, 3)
    assert len((await other(PageRequest(3, page.next_page_token))).rows) == 3


async def test_a_tampered_token_is_refused(desk: Desk, token: str) -> None:
    for tampered in (token[1:], token[:-4], token[::-1], token.swapcase(), "x", "\0", "é"):
        await refused(all_tickets(desk, READER), tampered)


async def refused(turn: Turn[Any], token: str) -> None:
    with pytest.raises(InvalidFields) as refusal:
        await turn(PageRequest(3, token))
    assert [violation.field for violation in refusal.value.violations] == ["page_token"]
