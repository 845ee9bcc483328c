"""Many at once on one ticket: nothing that was acknowledged is lost, nothing is applied twice, no number is skipped."""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable
from itertools import pairwise
from uuid import uuid4

import pytest

from server.domain.tickets import Ticket
from server.errors import IllegalTransition, ServiceError, TicketNotAssignable, VersionMismatch
from tests.integration.vocabulary import (
    Desk,
    Row,
    as_agent,
    assign,
    counts,
    events_of,
    look_at,
    move,
    note,
    open_ticket,
    say,
    types_of,
)

ALLOWED = {
    ("open", "in_progress"), ("open", "resolved"), ("open", "closed"),
    ("in_progress", "open"), ("in_progress", "resolved"), ("in_progress", "closed"),
    ("resolved", "in_progress"), ("resolved", "closed"),
}  # fmt: skip


def numbers(events: list[Row], name: str) -> list[int]:
    """A column of the events, absent ones left out."""
    return [event[name] for event in events if event[name] is not None]


def check_history(events: list[Row], ticket: Ticket) -> None:
    """The rules that every history keeps, whoever wrote at the same time; `ticket` is how it ended."""
    assert numbers(events, "position") == list(range(1, len(events) + 1))
    public = [event for event in events if not event["is_internal"]]
    assert numbers(public, "sequence") == list(range(1, len(public) + 1))
    assert [event["row_no"] for event in events] == sorted(event["row_no"] for event in events)
    versions = [event["ticket"]["version"] for event in public]
    assert set(versions) == set(range(1, ticket.version + 1))
    assert versions == sorted(versions)
    steps = [(e["from_status"], e["to_status"]) for e in events if e["event_type"] == "ticket_status_changed"]
    assert set(steps) <= ALLOWED
    assert all(earlier[1] == later[0] for earlier, later in pairwise([("", "open"), *steps]))
    assert ticket.status == (steps[-1][1] if steps else "open")


async def test_twenty_assignments_at_once_all_happen_once_each(desk: Desk) -> None:
    ticket = await open_ticket(desk)
    assignees = [uuid4() for _ in range(20)]
    answers = await asyncio.gather(*(assign(desk, ticket, assignee) for assignee in assignees))
    assert sorted(answer.version for answer in answers) == list(range(2, 22))
    events = await events_of(desk, ticket)
    check_history(events, await look_at(desk, ticket))
    told = [event for event in events if event["event_type"] == "ticket_assigned"]
    assert Counter(event["assigned_to"] for event in told) == Counter(assignees)
    assert [event["previous_assignee"] for event in told] == [None, *(event["assigned_to"] for event in told[:-1])]
    by_version = {event["ticket"]["version"]: event["assigned_to"] for event in told}
    assert all(by_version[answer.version] == answer.assigned_to for answer in answers)


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_twenty_changers_at_once_follow_the_machine(desk: Desk, seed: int) -> None:
    print("seed", seed)  # noqa: T201
    chance = random.Random(seed)  # noqa: S311
    ticket = await open_ticket(desk)

    def some_change() -> Awaitable[object]:
        kind = chance.choice(["move", "move", "assign", "say", "note"])
        if kind == "move":
            return move(desk, ticket, chance.choice(["open", "in_progress", "resolved"]))
        if kind == "assign":
            return assign(desk, ticket, uuid4())
        return say(desk, ticket) if kind == "say" else note(desk, ticket)

    answers = await asyncio.gather(*(some_change() for _ in range(20)), return_exceptions=True)
    refused = [answer for answer in answers if isinstance(answer, BaseException)]
    assert all(isinstance(error, (IllegalTransition, TicketNotAssignable)) for error in refused), refused
    events = await events_of(desk, ticket)
    check_history(events, await look_at(desk, ticket))
    snapshots = {event["ticket"]["version"]: event["ticket"]["status"] for event in events if event["ticket"]}
    for answer in answers:
        if isinstance(answer, Ticket):
            assert snapshots[answer.version] == answer.status


async def test_every_comment_among_changes_is_there_once(desk: Desk) -> None:
    ticket = await open_ticket(desk)
    said = [say(desk, ticket, text=f"number {number}") for number in range(15)]
    noted = [note(desk, ticket) for _ in range(5)]
    moved = [assign(desk, ticket, uuid4()) for _ in range(10)]
    await asyncio.gather(*(work for group in zip(said, [*noted, *moved], strict=True) for work in group))
    events = await events_of(desk, ticket)
    check_history(events, await look_at(desk, ticket))
    assert Counter(types_of(events)) == {
        "ticket_created": 1, "ticket_commented": 20, "ticket_assigned": 10, "ticket_status_changed": 1,
    }  # fmt: skip
    assert (await counts(desk))["ticket_comments"] == 20


async def test_of_many_with_the_same_expectation_one_wins(desk: Desk) -> None:
    ticket = await open_ticket(desk)
    calls = (assign(desk, ticket, uuid4(), expected=1) for _ in range(12))
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert sum(isinstance(answer, VersionMismatch) for answer in answers) == 11
    check_history(await events_of(desk, ticket), await look_at(desk, ticket))


async def test_of_many_who_close_one_does_and_the_others_find_it_closed(desk: Desk) -> None:
    ticket = await open_ticket(desk)
    answers = await asyncio.gather(*(move(desk, ticket, "closed") for _ in range(12)))
    assert {(answer.status, answer.version) for answer in answers} == {("closed", 2)}
    assert types_of(await events_of(desk, ticket)) == ["ticket_created", "ticket_status_changed", "ticket_closed"]


async def test_a_public_comment_never_follows_the_closing_of_its_ticket(desk: Desk) -> None:
    ticket = await open_ticket(desk)
    said = (say(desk, ticket, as_agent()) for _ in range(15))
    answers = await asyncio.gather(*said, move(desk, ticket, "closed"), return_exceptions=True)
    events = await events_of(desk, ticket)
    assert types_of(events)[-2:] == ["ticket_status_changed", "ticket_closed"]
    refused = sum(isinstance(answer, ServiceError) for answer in answers)
    assert types_of(events).count("ticket_commented") == 15 - refused
    check_history(events, await look_at(desk, ticket))


async def test_many_comments_on_a_resolved_ticket_reopen_it_once(desk: Desk) -> None:
    ticket = await move(desk, await open_ticket(desk), "resolved")
    await asyncio.gather(*(say(desk, ticket, text=f"number {number}") for number in range(12)))
    events = await events_of(desk, ticket)
    check_history(events, await look_at(desk, ticket))
    assert sum(event["reason"] == "comment" for event in events) == 1
