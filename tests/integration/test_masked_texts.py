"""What is sensitive in a text is masked in the row that it is written to; as it was it stands in one table alone."""

import asyncio
import random
import threading
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from server.domain.feedback import Feedback
from server.domain.tickets import Comment, Findings, Ticket
from server.errors import IdempotencyKeyReused, IllegalTransition, Overloaded, VersionMismatch
from server.usecases import masking
from tests.integration.privacy_acts import erase
from tests.integration.test_concurrent_changes import check_history
from tests.integration.traces import traces
from tests.integration.vocabulary import (
    Desk,
    as_agent,
    as_customer,
    assign,
    events_of,
    look_at,
    move,
    open_ticket,
    owner_of,
    query,
    rate,
    say,
    until,
)

CARD = "4111 1111 1111 1111"
MASKED_CARD = "**** **** **** 1111"
PIN = "my PIN is 4711"
MASKED_PIN = "my PIN is ****"


def found(field: str, kind: str, start: int, length: int) -> dict[str, Any]:
    """A finding as a row has it."""
    return {"field": field, "kind": kind, "start": start, "length": length}


async def originals(desk: Desk) -> dict[tuple[UUID, str], str]:
    """The whole table of texts as they were written."""
    rows = await query(desk, "SELECT * FROM admin_service.concealed_texts")
    return {(row["resource_id"], row["field"]): row["text"] for row in rows}


# --- What is written --------------------------------------------------------------------------------------------------


async def test_a_tickets_texts_are_masked_and_kept_as_they_were_written(desk: Desk) -> None:
    subject, description = f" Charged {CARD} twice ", f"Hello 🍲\r\n{PIN}, and CVV 123."
    ticket = await open_ticket(desk, subject=subject, description=description)
    assert ticket.subject == f"Charged {MASKED_CARD} twice"
    assert ticket.description == f"Hello 🍲\n{MASKED_PIN}, and CVV ***."
    assert ticket.findings == [
        found("subject", "card_number", 8, 19),
        found("description", "pin", 18, 4),
        found("description", "security_code", 32, 3),
    ]
    assert await look_at(desk, ticket, owner_of(ticket)) == ticket
    assert await originals(desk) == {
        (ticket.id, "subject"): f"Charged {CARD} twice",
        (ticket.id, "description"): f"Hello 🍲\n{PIN}, and CVV 123.",
    }
    (event,) = await events_of(desk, ticket)
    assert event["ticket"]["subject"] == ticket.subject


async def test_each_finding_is_where_the_stars_are(desk: Desk) -> None:
    ticket = await open_ticket(desk, description=f"\u3000é\u0301 {CARD} 🍲 {PIN}; IBAN DE89 3704 0044 0532 0130 00")
    stars = [text_at(ticket, finding).count("*") for finding in ticket.findings or ()]
    assert stars == [12, 4, 18]
    assert sum(stars) == ticket.description.count("*")


def text_at(ticket: Ticket, finding: Any) -> str:  # noqa: ANN401 - a row's JSON
    return str(getattr(ticket, finding["field"])[finding["start"] :][: finding["length"]])


async def test_a_text_without_anything_sensitive_leaves_no_trace(desk: Desk) -> None:
    ticket = await open_ticket(desk, description="Order 4111111111 never came.")
    comment = await say(desk, ticket)
    resolved = await move(desk, ticket, "resolved", notes="Refunded.")
    assert (ticket.findings, comment.findings, resolved.findings) == (None, None, None)
    assert await originals(desk) == {}


@pytest.mark.parametrize("internal", [True, False])
async def test_comments_and_notes_are_masked(desk: Desk, *, internal: bool) -> None:
    ticket, agent = await open_ticket(desk), as_agent()
    comment = await say(desk, ticket, agent, f"He says {PIN}", internal=internal)
    assert (comment.comment, comment.findings) == (f"He says {MASKED_PIN}", [found("comment", "pin", 18, 4)])
    rows = await query(desk, "SELECT * FROM admin_service.concealed_texts")
    assert rows == [{"resource_id": comment.id, "field": "comment", "ticket_id": ticket.id, "text": f"He says {PIN}"}]


async def test_a_secret_stands_in_the_table_of_originals_and_nowhere_else(desk: Desk) -> None:
    caller = as_customer()
    ticket = await open_ticket(
        desk, caller, subject=f"s {CARD}", description=f"d {CARD}", order_id=str(uuid4()), key=f"key-{uuid4()}"
    )
    await say(desk, ticket, text=f"c {CARD}", key="k")
    await say(desk, ticket, as_agent(), f"n {CARD}", internal=True)
    await assign(desk, ticket, uuid4())
    await move(desk, ticket, "resolved", notes=f"r {CARD}")
    await rate(desk, ticket, 4, f"f {CARD}")
    assert traces(desk.dsn, CARD) == {CARD: {"admin_service.concealed_texts.text"}}
    assert sorted(text[:2] for text in (await originals(desk)).values()) == ["c ", "d ", "n ", "r ", "s "]


async def test_a_remark_is_masked_and_kept_nowhere_as_it_was_written(desk: Desk) -> None:
    ticket = await move(desk, await open_ticket(desk), "resolved")
    given = await rate(desk, ticket, 2, f"Useless, {PIN}")
    assert (given.remark, given.findings) == (f"Useless, {MASKED_PIN}", [found("remark", "pin", 19, 4)])
    assert traces(desk.dsn, PIN) == {}
    (row,) = await query(desk, "SELECT * FROM admin_service.ticket_feedback")
    assert Feedback(**row) == given
    assert (await rate(desk, ticket, 2, "Useless.")).findings is None
    assert await rate(desk, ticket, 2, "Useless.") == await rate(desk, ticket, 2, "Useless.")


# --- Notes ------------------------------------------------------------------------------------------------------------

IN_SUBJECT = found("subject", "card_number", 0, 19)


async def card_ticket(desk: Desk) -> Ticket:
    """A ticket with something masked in its subject."""
    return await open_ticket(desk, subject=CARD)


async def reopened(desk: Desk, ticket: Ticket) -> Ticket:
    return await move(desk, ticket, "in_progress")


@pytest.mark.parametrize(
    ("notes", "findings"),
    [
        (f"Again, {PIN}", [found("resolution_notes", "pin", 17, 4)]),
        ("Refunded.", []),
        (None, []),
    ],
    ids=["others that are sensitive", "others that are not", "none"],
)
async def test_new_notes_take_the_place_of_the_earlier_ones_and_of_what_was_found_in_them(
    desk: Desk, notes: str | None, findings: list[Any]
) -> None:
    ticket = await card_ticket(desk)
    first = await move(desk, ticket, "resolved", notes=f"{CARD} refunded")
    assert first.findings == [IN_SUBJECT, found("resolution_notes", "card_number", 0, 19)]
    again = await move(desk, await reopened(desk, ticket), "resolved", notes=notes)
    assert again.findings == [IN_SUBJECT, *findings]
    in_notes = {(ticket.id, "resolution_notes"): notes} if findings else {}
    assert await originals(desk) == {(ticket.id, "subject"): CARD, **in_notes}


async def test_everything_but_a_resolution_leaves_findings_and_originals_as_they_are(desk: Desk) -> None:
    ticket = await card_ticket(desk)
    resolved = await move(desk, ticket, "resolved", notes=PIN)
    before = await originals(desk)
    acts: list[Callable[[], Awaitable[object]]] = [
        lambda: say(desk, ticket, text="Not at all!"),  # which reopens it
        lambda: assign(desk, ticket, uuid4()),
        lambda: move(desk, ticket, "open"),
        lambda: move(desk, ticket, "closed"),
    ]
    for act in acts:
        await act()
        now = await look_at(desk, ticket)
        assert (now.resolution_notes, now.findings) == (MASKED_PIN, resolved.findings)
        assert await originals(desk) == before


async def test_notes_that_are_not_written_leave_nothing(desk: Desk) -> None:
    ticket = await move(desk, await open_ticket(desk), "resolved", notes="Refunded.")
    assert await move(desk, ticket, "resolved", notes=PIN) == ticket
    with pytest.raises(VersionMismatch):
        await move(desk, await reopened(desk, ticket), "resolved", notes=PIN, expected=1)
    assert await originals(desk) == {}


# --- Retries ----------------------------------------------------------------------------------------------------------


async def test_a_retry_is_answered_masked_and_creates_nothing(desk: Desk) -> None:
    caller = as_customer()
    ticket = await open_ticket(desk, caller, description=PIN, key="k")
    comment = await say(desk, ticket, text=PIN, key="k")
    await move(desk, ticket, "resolved", notes=CARD)
    before = await originals(desk)
    assert await open_ticket(desk, caller, description=PIN, key="k") == ticket
    assert await say(desk, ticket, text=PIN, key="k") == comment
    assert await originals(desk) == before


async def test_another_secret_under_the_same_key_is_another_payload_though_it_looks_the_same(desk: Desk) -> None:
    caller = as_customer()
    ticket = await open_ticket(desk, caller, description="my PIN is 4711", key="k")
    with pytest.raises(IdempotencyKeyReused):
        await open_ticket(desk, caller, description="my PIN is 4712", key="k")
    with pytest.raises(IdempotencyKeyReused):
        await open_ticket(desk, caller, description=MASKED_PIN, key="k")
    await say(desk, ticket, text="my PIN is 4711", key="k")
    with pytest.raises(IdempotencyKeyReused):
        await say(desk, ticket, text="my PIN is 4712", key="k")


async def test_fifty_at_once_under_one_key_keep_one_original(desk: Desk) -> None:
    caller = as_customer()
    tickets = await asyncio.gather(*(open_ticket(desk, caller, description=PIN, key="k") for _ in range(50)))
    said = await asyncio.gather(*(say(desk, tickets[0], text=PIN, key="k") for _ in range(50)))
    assert await originals(desk) == {(tickets[0].id, "description"): PIN, (said[0].id, "comment"): PIN}


# --- Many at once -----------------------------------------------------------------------------------------------------


async def test_whatever_many_do_at_once_each_row_shows_what_its_original_is_masked_to(desk: Desk) -> None:
    ticket = await card_ticket(desk)
    chance = random.Random(11)  # noqa: S311

    async def worker(number: int) -> None:
        for step in range(6):
            notes = chance.choice([f"{PIN}", f"{CARD} of {number}.{step}", f"Refunded by {number}.", None])
            answers = await asyncio.gather(
                move(desk, ticket, "resolved", notes=notes),
                say(desk, ticket, as_agent(), f"Done {number}.{step}, {CARD}"),
                move(desk, ticket, "in_progress"),
                return_exceptions=True,
            )
            assert all(isinstance(each, Ticket | Comment | IllegalTransition) for each in answers), answers

    await asyncio.gather(*(worker(number) for number in range(5)))
    now, kept = await look_at(desk, ticket), await originals(desk)
    comments = await query(desk, "SELECT * FROM admin_service.ticket_comments")
    for text, findings, key in [
        (now.subject, fields(now.findings, "subject"), (ticket.id, "subject")),
        (now.resolution_notes, fields(now.findings, "resolution_notes"), (ticket.id, "resolution_notes")),
        *((row["comment"], row["findings"], (row["id"], "comment")) for row in comments),
    ]:
        written = kept.pop(key, text)
        safe = await masking.masked({key[1]: written} if written else {})
        assert (safe.texts.get(key[1]), list(safe.findings or ())) == (text, list(findings or ()))
    assert kept == {}
    check_history(await events_of(desk, ticket), now)


def fields(findings: Findings, name: str) -> Findings:
    return [finding for finding in findings or () if finding["field"] == name]


async def test_an_erasure_takes_the_originals_too(desk: Desk) -> None:
    caller = as_customer()
    ticket = await card_ticket(desk)
    mine = await open_ticket(desk, caller, description=PIN)
    await say(desk, mine, text=CARD)
    await move(desk, mine, "resolved", notes=CARD)
    await erase(desk, caller)
    assert await originals(desk) == {(ticket.id, "subject"): CARD}
    assert traces(desk.dsn, PIN) == {}
    (row,) = await query(desk, "SELECT * FROM admin_service.support_tickets WHERE id = %s", mine.id)
    assert row["findings"] is None


# --- Long texts -------------------------------------------------------------------------------------------------------

LONG = f"{PIN}. " + "The soup came cold. " * 200


@pytest.fixture
def held_thread() -> threading.Event:
    """The thread that long texts are searched in is busy until the event is set."""
    release = threading.Event()
    masking._thread.submit(release.wait, 20)
    return release


async def test_a_long_text_is_masked_like_a_short_one(desk: Desk) -> None:
    assert len(LONG) > masking.LONGEST_INLINE
    ticket = await open_ticket(desk, description=LONG)
    assert ticket.description.startswith(MASKED_PIN)
    assert ticket.findings == [found("description", "pin", 10, 4)]


async def test_nobody_waits_for_the_long_texts_of_others(desk: Desk, held_thread: threading.Event) -> None:
    long = asyncio.create_task(open_ticket(desk, description=LONG))
    try:
        await open_ticket(desk, description=PIN)
        assert not long.done()
    finally:
        held_thread.set()
    assert (await long).findings


async def test_more_long_texts_than_there_is_room_for_are_refused_and_the_room_comes_back(
    desk: Desk, held_thread: threading.Event
) -> None:
    waiting = [asyncio.create_task(open_ticket(desk, description=LONG)) for _ in range(masking.MOST_WAITING)]
    try:
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await open_ticket(desk, description=LONG)
        # Whoever gives up makes room.
        waiting.pop().cancel()

        async def is_room() -> bool:
            waiting.append(asyncio.create_task(open_ticket(desk, description=LONG)))
            await asyncio.sleep(0)
            return not waiting[-1].done()

        await until(is_room)
    finally:
        held_thread.set()
    answers = await asyncio.gather(*waiting, return_exceptions=True)
    assert sum(isinstance(answer, Ticket) for answer in answers) == masking.MOST_WAITING
    assert (await open_ticket(desk, description=LONG)).findings


async def test_a_call_that_is_cancelled_while_its_text_is_searched_writes_nothing(
    desk: Desk, held_thread: threading.Event
) -> None:
    call = asyncio.create_task(open_ticket(desk, description=LONG))
    await asyncio.sleep(0)
    call.cancel()
    held_thread.set()
    with pytest.raises(asyncio.CancelledError):
        await call
    desk.clock.pass_by(timedelta(seconds=1))
    assert await originals(desk) == {}
