"""The tickets of the benchmarks are such as the service itself could have made."""

from bench.data_set import data_set, load
from tests.integration.vocabulary import Desk, all_tickets, as_agent, counts, first_page, query


async def test_the_data_set_is_there_after_loading_and_staff_see_it(desk: Desk) -> None:
    data = data_set()
    load(desk.dsn, data)
    assert (await counts(desk))["support_tickets"] == len(data.tickets)
    (total,) = await query(desk, "SELECT count(*) AS comments FROM admin_service.ticket_comments")
    assert total["comments"] == sum(ticket.comments for ticket in data.tickets)

    shown = (await first_page(all_tickets(desk, as_agent()))).rows
    known = {ticket.id: ticket for ticket in data.tickets}
    assert len(shown) == 20
    for row in shown:
        of = known[row.id]
        assert (row.user_id, row.status, row.created_at) == (of.owner, of.status, of.created_at)
