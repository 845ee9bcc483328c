"""Handing out a person's data: everything that the person may see, once, and nothing of anybody else."""

from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from psycopg.types.json import Jsonb

from devstack.order_service import usual_order
from server.clients.order_service import read_order
from server.domain.callers import Caller
from server.domain.events import HistoryEntry
from server.domain.orders import to_json
from server.domain.tickets import Comment
from server.errors import InvalidFields
from server.usecases import export
from server.usecases.export import TicketRecord
from server.usecases.lists import Page, PageRequest
from tests.integration.privacy_acts import export_of
from tests.integration.vocabulary import (
    START,
    Desk,
    as_agent,
    as_customer,
    as_supervisor,
    assign,
    comments_on,
    events_of,
    first_page,
    history_of,
    look_at,
    move,
    my_tickets,
    note,
    open_ticket,
    pages,
    query,
    say,
    whole,
)
from tests.system.vocabulary import dice


async def a_life(desk: Desk, owner: Caller, comments: int) -> None:
    """A ticket with comments and notes."""
    ticket, staff = await open_ticket(desk, owner, order_id=str(uuid4())), as_agent()
    await note(desk, ticket, "Hazelnut")
    await assign(desk, ticket, staff.id)
    for number in range(comments):
        desk.clock.pass_by(timedelta(seconds=1))
        await say(desk, ticket, [owner, staff][number % 2])
    await note(desk, ticket, "Hazelnut")
    await move(desk, ticket, "resolved", staff)


@pytest.mark.parametrize("sizes", [[1], [2], [3, 1], [7], [100]])
async def test_every_record_comes_once_in_its_order_whatever_the_size_of_the_pages(
    desk: Desk, sizes: list[int]
) -> None:
    chance, owner, other = dice("export"), as_customer(), as_customer()
    for person in (owner, other, owner, owner, other):
        await a_life(desk, person, chance.randrange(4))
    tickets = list(reversed(await whole(my_tickets(desk, owner))))
    comments = [list(reversed(await whole(comments_on(desk, ticket, owner)))) for ticket in tickets]
    history = [await whole(history_of(desk, ticket, owner)) for ticket in tickets]

    found = await pages(export_of(desk, owner), sizes)
    records = [record for page in found for record in page]
    assert all(len(page) <= sizes[number % len(sizes)] for number, page in enumerate(found))
    assert [record.ticket for record in records if isinstance(record, TicketRecord)] == tickets
    assert [record for record in records if isinstance(record, Comment)] == [it for of in comments for it in of]
    assert [record for record in records if isinstance(record, HistoryEntry)] == [it for of in history for it in of]
    kinds = [(TicketRecord, Comment, HistoryEntry).index(type(record)) for record in records]
    assert kinds == sorted(kinds)


async def test_a_ticket_comes_with_its_feedback_and_what_is_known_of_its_order(desk: Desk) -> None:
    owner, order_id = as_customer(), uuid4()
    rated = await open_ticket(desk, owner, order_id=str(order_id))
    await open_ticket(desk, owner)
    await query(
        desk,
        "INSERT INTO admin_service.ticket_feedback VALUES (%s, 4, 'Kind', null, now(), now(), null)",
        rated.id,
    )
    first, second, *_ = await whole(export_of(desk, owner))
    assert isinstance(first, TicketRecord)
    assert first.feedback is not None
    assert first.order is not None
    assert (first.feedback.rating, first.feedback.remark) == (4, "Kind")
    assert (first.order.state, first.order.order_id) == ("pending", order_id)
    assert isinstance(second, TicketRecord)
    assert (second.feedback, second.order) == (None, None)


async def test_an_order_that_is_known_comes_with_its_snapshot(desk: Desk) -> None:
    owner, order_id = as_customer(), uuid4()
    ticket = await open_ticket(desk, owner, order_id=str(order_id))
    order = read_order(order_id, usual_order(str(order_id)))
    await query(
        desk,
        "UPDATE admin_service.ticket_orders SET state = 'known', snapshot = %s, fetched_at = %s WHERE ticket_id = %s",
        Jsonb(to_json(order)), START - timedelta(hours=1), ticket.id,
    )  # fmt: skip
    record, *_ = await whole(export_of(desk, owner))
    assert isinstance(record, TicketRecord)
    assert record.order is not None
    assert (record.order.state, record.order.order, record.order.age) == ("snapshot", order, timedelta(hours=1))


async def test_an_export_is_noted_once_in_the_history_of_each_ticket_for_staff_alone(desk: Desk) -> None:
    owner, other, boss = as_customer(), as_customer(), as_supervisor()
    tickets = [await open_ticket(desk, person) for person in (owner, owner, other)]
    await pages(export_of(desk, owner, boss), [1])
    *noted, untouched = [await whole(history_of(desk, ticket)) for ticket in tickets]
    assert [entry.event_type for entry in untouched] == ["ticket_created"]
    for entries, ticket in zip(noted, tickets, strict=False):
        assert [entry.event_type for entry in entries] == ["ticket_created", "ticket_exported"]
        entry = entries[-1]
        assert (entry.position, entry.sequence, entry.is_internal, entry.actor_id) == (2, None, True, boss.id)
        assert await look_at(desk, ticket) == ticket
        assert [it.event_type for it in await whole(history_of(desk, ticket, owner))] == ["ticket_created"]
    assert len({entries[-1].change_id for entries in noted}) == 1


async def test_what_happens_to_a_ticket_after_an_export_has_the_next_numbers(desk: Desk) -> None:
    owner = as_customer()
    ticket = await open_ticket(desk, owner)
    await first_page(export_of(desk, owner))
    await say(desk, ticket, owner)
    events = await events_of(desk, ticket)
    assert [(event["position"], event["sequence"]) for event in events] == [(1, 1), (2, None), (3, 2)]


async def test_every_ticket_of_many_is_noted(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "TICKETS_AT_ONCE", 3)
    owner = as_customer()
    for _ in range(7):
        await open_ticket(desk, owner)
    await first_page(export_of(desk, owner))
    rows = await query(desk, "SELECT ticket_id FROM admin_service.ticket_events WHERE event_type = 'ticket_exported'")
    assert len(rows) == len({row["ticket_id"] for row in rows}) == 7


async def test_of_whom_nothing_is_known_the_export_is_empty(desk: Desk) -> None:
    assert await first_page(export_of(desk, as_customer())) == Page([], "")


async def test_a_token_is_of_one_caller_and_one_user(desk: Desk) -> None:
    owner, boss = as_customer(), as_supervisor()
    await a_life(desk, owner, 3)
    for size in (1, 3, 5):
        token = (await first_page(export_of(desk, owner, boss), size)).next_page_token
        for turn in (export_of(desk, owner), export_of(desk, as_customer(), boss)):
            with pytest.raises(InvalidFields):
                await turn(PageRequest(size, token))
        assert (await export_of(desk, owner, boss)(PageRequest(1, token))).rows


@pytest.mark.parametrize(
    ("user_id", "size", "token", "bad"),
    [
        ("nobody", -1, "nonsense", {"user_id", "page_size", "page_token"}),
        ("0192f0c1-2345-7abc-8def-0123456789ab", 0, "x", {"page_token"}),
    ],
)
async def test_every_bad_field_is_named(desk: Desk, user_id: str, size: int, token: str, bad: set[str]) -> None:
    with pytest.raises(InvalidFields) as refused:
        await export.export_personal_data(desk.on, as_supervisor(), user_id=user_id, page=PageRequest(size, token))
    assert {violation.field for violation in refused.value.violations} == bad


async def test_ten_thousand_comments_are_handed_out_in_pages_that_read_no_more_than_they_show(desk: Desk) -> None:
    owner = as_customer()
    ticket = await open_ticket(desk, owner)
    await query(
        desk,
        "INSERT INTO admin_service.ticket_comments (id, ticket_id, user_id, comment, is_internal, created_at,"
        " author_role) SELECT gen_random_uuid(), %s, %s, 'Marzipan', false, %s + n * interval '1 second', 'customer'"
        " FROM generate_series(1, 10000) AS n",
        *(ticket.id, owner.id, desk.clock.now),
    )
    await query(desk, "ANALYZE admin_service.ticket_comments")
    turn, seen, token = export_of(desk, owner), list[UUID](), ""
    while not seen or token:
        page = await turn(PageRequest(100, token))
        seen += [record.id for record in page.rows if isinstance(record, Comment)]
        token = page.next_page_token
    assert len(seen) == len(set(seen)) == 10_000
