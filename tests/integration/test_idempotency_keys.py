"""Retries: the same caller, call, key and payload create once; everything else is told apart."""

import asyncio
from datetime import timedelta
from uuid import uuid4

import pytest

from server.errors import IdempotencyKeyReused, InvalidFields, ServiceError, TicketClosed, TicketNotFound
from tests.integration.vocabulary import (
    KEY_TTL,
    Desk,
    as_agent,
    as_customer,
    as_service,
    assign,
    counts,
    events_of,
    look_at,
    move,
    open_ticket,
    owner_of,
    say,
    types_of,
)


async def test_fifty_creations_at_once_make_one_ticket_and_one_event(desk: Desk) -> None:
    caller = as_customer()
    answers = await asyncio.gather(*(open_ticket(desk, caller, key="k") for _ in range(50)))
    assert len(set(answers)) == 1
    assert await counts(desk) == {
        "support_tickets": 1, "ticket_comments": 0, "ticket_events": 1, "idempotency_keys": 1,
    }  # fmt: skip


async def test_fifty_comments_at_once_make_one_comment_and_one_event(desk: Desk) -> None:
    ticket = await open_ticket(desk)
    answers = await asyncio.gather(*(say(desk, ticket, key="k") for _ in range(50)))
    assert len(set(answers)) == 1
    assert await counts(desk) == {
        "support_tickets": 1, "ticket_comments": 1, "ticket_events": 2, "idempotency_keys": 1,
    }  # fmt: skip


async def test_fifty_reopening_comments_at_once_reopen_once(desk: Desk) -> None:
    ticket = await move(desk, await open_ticket(desk), "resolved")
    await asyncio.gather(*(say(desk, ticket, key="k") for _ in range(50)))
    events = await events_of(desk, ticket)
    assert types_of(events[-2:]) == ["ticket_commented", "ticket_status_changed"]
    assert [event["sequence"] for event in events] == [1, 2, 3, 4, 5]


async def test_other_payloads_at_once_under_one_key_let_exactly_one_through(desk: Desk) -> None:
    caller = as_customer()
    calls = (open_ticket(desk, caller, subject=f"number {number}", key="k") for number in range(20))
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert sum(isinstance(answer, IdempotencyKeyReused) for answer in answers) == 19
    assert (await counts(desk))["support_tickets"] == 1


async def test_without_a_key_the_same_creation_makes_another_ticket(desk: Desk) -> None:
    caller = as_customer()
    assert (await open_ticket(desk, caller)).id != (await open_ticket(desk, caller)).id


async def test_a_retry_is_answered_with_the_ticket_as_it_was_created(desk: Desk) -> None:
    caller = as_customer()
    ticket = await open_ticket(desk, caller, key="k", priority="high")
    desk.clock.pass_by(timedelta(hours=1))
    await assign(desk, ticket, uuid4())
    await move(desk, ticket, "resolved", notes="Refunded.")
    assert await open_ticket(desk, caller, key="k", priority="high") == ticket


async def test_what_is_stored_is_compared_rather_than_what_was_typed(desk: Desk) -> None:
    caller, order = as_customer(), str(uuid4())
    ticket = await open_ticket(desk, caller, key="k", order_id=order, priority="medium")
    assert await open_ticket(desk, caller, key="k", order_id=order.upper(), subject=" Cold soup\r\n") == ticket


@pytest.mark.parametrize(
    "changed",
    [
        {"subject": "Warm soup"},
        {"description": "Other."},
        {"priority": "low"},
        {"order_id": "0192f0c1-2345-7abc-8def-0123456789ab"},
    ],
    ids=lambda changed: next(iter(changed)),
)
async def test_the_same_key_with_another_payload_is_refused(desk: Desk, changed: dict[str, str]) -> None:
    caller = as_customer()
    await open_ticket(desk, caller, key="k")
    with pytest.raises(IdempotencyKeyReused):
        await open_ticket(desk, caller, key="k", **changed)
    assert (await counts(desk))["support_tickets"] == 1


async def test_the_user_whom_a_ticket_is_for_is_part_of_the_payload(desk: Desk) -> None:
    service = as_service()
    await open_ticket(desk, service, key="k", user_id=str(uuid4()))
    with pytest.raises(IdempotencyKeyReused):
        await open_ticket(desk, service, key="k", user_id=str(uuid4()))


async def test_another_caller_has_the_key_to_themselves(desk: Desk) -> None:
    mine = await open_ticket(desk, as_customer(), key="k")
    theirs = await open_ticket(desk, as_customer(), key="k")
    assert mine.id != theirs.id


async def test_another_call_has_the_key_to_itself(desk: Desk) -> None:
    caller = as_customer()
    ticket = await open_ticket(desk, caller, key="k")
    comment = await say(desk, ticket, caller, key="k")
    assert await say(desk, ticket, caller, key="k") == comment
    assert (await counts(desk))["idempotency_keys"] == 2


async def test_the_key_on_another_ticket_is_another_payload(desk: Desk) -> None:
    caller = as_customer()
    first, second = await open_ticket(desk, caller), await open_ticket(desk, caller)
    await say(desk, first, caller, key="k")
    with pytest.raises(IdempotencyKeyReused):
        await say(desk, second, caller, key="k")


@pytest.mark.parametrize("internal", [True, False])
async def test_whether_a_comment_is_internal_is_part_of_the_payload(desk: Desk, *, internal: bool) -> None:
    ticket, agent = await open_ticket(desk), as_agent()
    await say(desk, ticket, agent, internal=internal, key="k")
    with pytest.raises(IdempotencyKeyReused):
        await say(desk, ticket, agent, internal=not internal, key="k")


async def test_a_comments_retry_is_answered_when_the_ticket_has_been_closed_meanwhile(desk: Desk) -> None:
    ticket = await open_ticket(desk)
    comment = await say(desk, ticket, key="k")
    await move(desk, ticket, "closed")
    before = await counts(desk)
    assert await say(desk, ticket, key="k") == comment
    assert await counts(desk) == before


async def test_a_retried_comment_does_not_reopen_the_ticket_again(desk: Desk) -> None:
    ticket = await move(desk, await open_ticket(desk), "resolved")
    comment = await say(desk, ticket, key="k")
    resolved = await move(desk, ticket, "resolved")
    assert await say(desk, ticket, key="k") == comment
    assert await look_at(desk, ticket) == resolved


async def test_another_payload_is_told_even_when_the_ticket_has_been_closed_meanwhile(desk: Desk) -> None:
    ticket = await open_ticket(desk)
    await say(desk, ticket, key="k")
    await move(desk, ticket, "closed")
    with pytest.raises(IdempotencyKeyReused):
        await say(desk, ticket, text="Something else.", key="k")


async def test_a_strangers_retry_does_not_find_the_ticket(desk: Desk) -> None:
    ticket = await open_ticket(desk)
    await say(desk, ticket, key="k")
    with pytest.raises(TicketNotFound):
        await say(desk, ticket, as_customer(), key="k")


@pytest.mark.parametrize("key", ["", " ", "ü", "k" * 256])
async def test_a_key_that_is_none_is_a_bad_field(desk: Desk, key: str) -> None:
    ticket = await open_ticket(desk)
    for refused in (open_ticket(desk, key=key), say(desk, ticket, key=key)):
        with pytest.raises(InvalidFields, match="idempotency-key"):
            await refused


async def test_a_refused_call_does_not_use_up_its_key(desk: Desk) -> None:
    caller = as_customer()
    with pytest.raises(ServiceError):
        await open_ticket(desk, caller, subject=" ", key="k")
    ticket = await open_ticket(desk, caller, key="k")
    await move(desk, ticket, "closed")
    agent = as_agent()
    with pytest.raises(TicketClosed):
        await say(desk, ticket, agent, key="k")
    assert (await say(desk, ticket, agent, internal=True, key="k")).is_internal


async def test_a_key_is_kept_for_its_time_and_free_afterwards(desk: Desk) -> None:
    caller = as_customer()
    first = await open_ticket(desk, caller, key="k")
    desk.clock.pass_by(KEY_TTL)
    assert await open_ticket(desk, caller, key="k") == first
    desk.clock.pass_by(timedelta(microseconds=1))
    second = await open_ticket(desk, caller, subject="Warm beer", key="k")
    assert second.id != first.id
    assert await open_ticket(desk, caller, subject="Warm beer", key="k") == second
    assert (await counts(desk))["idempotency_keys"] == 1


async def test_a_comments_key_expires_too(desk: Desk) -> None:
    ticket = await open_ticket(desk)
    first = await say(desk, ticket, owner_of(ticket), key="k")
    desk.clock.pass_by(KEY_TTL + timedelta(microseconds=1))
    second = await say(desk, ticket, owner_of(ticket), key="k")
    assert second.id != first.id


async def test_fifty_at_once_take_an_expired_key_over_once(desk: Desk) -> None:
    caller = as_customer()
    await open_ticket(desk, caller, key="k")
    desk.clock.pass_by(KEY_TTL + timedelta(seconds=1))
    answers = await asyncio.gather(*(open_ticket(desk, caller, key="k") for _ in range(50)))
    assert len({ticket.id for ticket in answers}) == 1
    assert (await counts(desk))["support_tickets"] == 2
