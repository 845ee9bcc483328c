"""What the Analytics Service does with events: it keeps what they show, and folds the facts of their tickets anew."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import groupby
from typing import Any
from uuid import UUID

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from nibble.support.v1 import actor_pb2, ticket_event_pb2, ticket_pb2
from psycopg import Connection

from server.analytics import statements
from server.analytics.generations import require_generation
from server.analytics.rules import Happening, Rating, Snapshot, TicketFact, fold, responder

_STATUS: dict[int, str] = {number: word for word, number in ticket_pb2.Ticket.Status.items() if number}
_PRIORITY: dict[int, str] = {number: word for word, number in ticket_pb2.Ticket.Priority.items() if number}
_ROLE: dict[int, str] = {number: word for word, number in actor_pb2.Actor.Role.items()}
_COMMENTED = ticket_event_pb2.TicketEvent.ticket_commented
_RATED = ticket_event_pb2.TicketEvent.ticket_rated
_RATINGS = range(1, 6)
_ERASED = ticket_event_pb2.TicketEvent.ticket_erased


class NotASnapshot(Exception):
    """The event does not show its ticket as facts need it; the message names the field."""


class FactKeeper:
    """The handler of one generation's events, as `server.workers.consumer` calls it.

    The facts of a batch's tickets are folded from all events that are kept of them, so that they depend on neither the
    order of the batches nor their size.
    """

    def __init__(self, generation: int) -> None:
        self._generation = generation

    def apply(self, connection: Connection[Any], events: Sequence[ticket_event_pb2.TicketEvent]) -> None:
        """Keep the events and put the facts of their tickets.

        Raises:
            Superseded: a rebuild has begun another generation.
            NotASnapshot: an event lacks what facts need.
        """
        require_generation(connection, self._generation)
        # An erasure is nothing that happened to a ticket, and takes nothing away: no owner and no text is kept here.
        snapshots = [snapshot_of(event) for event in events if event.event_type != _ERASED]
        if not snapshots:
            return
        columns = zip(Snapshot._fields, map(list, zip(*snapshots, strict=True)), strict=True)
        connection.execute(statements.KEEP_EVENTS.sql, statements.KEEP_EVENTS.bind(dict(columns)), prepare=True)
        put_facts(connection, sorted({snapshot.ticket_id for snapshot in snapshots}))


def put_facts(connection: Connection[Any], ticket_ids: list[UUID]) -> None:
    """Fold the facts of these tickets from all their events, and write them.

    Args:
        ticket_ids: ascending, so that two who write some of the same never wait for each other in vain.
    """
    facts = [fact_values(fold(life)) for life in _lives(connection, ticket_ids)]
    put = [statements.PUT_FACT.bind(fact) for fact in facts]
    connection.cursor().executemany(statements.PUT_FACT.sql, put)


def _lives(connection: Connection[Any], ticket_ids: list[UUID]) -> Iterator[Iterator[Snapshot]]:
    cursor = connection.cursor(binary=True)
    listing = statements.LIST_EVENTS_OF_TICKETS
    cursor.execute(listing.sql, listing.bind({"ticket_ids": ticket_ids}), prepare=True)
    for _, life in groupby(map(Snapshot._make, cursor), key=lambda snapshot: snapshot.ticket_id):
        yield life


def snapshot_of(event: ticket_event_pb2.TicketEvent) -> Snapshot:
    """What an event shows.

    Raises:
        NotASnapshot: a time is missing, or a status, priority or rating is none that this version knows.
    """
    ticket, actor = event.ticket, event.actor
    commented = event.event_type == _COMMENTED
    return Snapshot(
        ticket_id=UUID(event.ticket_id),
        sequence=event.sequence,
        occurred_at=_time(event, "occurred_at"),
        created_at=_time(ticket, "created_at"),
        priority=_word("ticket.priority", _PRIORITY, ticket.priority),
        status=_word("ticket.status", _STATUS, ticket.status),
        assigned_to=UUID(ticket.assigned_to) if ticket.HasField("assigned_to") else None,
        resolved_at=_time(ticket, "resolved_at") if ticket.HasField("resolved_at") else None,
        responder=responder(UUID(actor.user_id), _ROLE[event.author_role], UUID(ticket.user_id)) if commented else None,
        rating=_rating(event.rating) if event.event_type == _RATED else None,
    )


def _time(message: Message, field: str) -> datetime:
    if not message.HasField(field):
        raise NotASnapshot(f"{field} is missing")
    time: Timestamp = getattr(message, field)
    return time.ToDatetime(UTC)


def _rating(number: int) -> int:
    if number not in _RATINGS:
        raise NotASnapshot("rating is none that is known here")
    return number


def _word(field: str, words: dict[int, str], number: int) -> str:
    if number not in words:
        raise NotASnapshot(f"{field} is none that is known here")
    return words[number]


def fact_values(fact: TicketFact) -> dict[str, object]:
    """The columns of `ticket_facts`."""
    return {
        "ticket_id": fact.ticket_id,
        "created_at": fact.created_at,
        "priority": fact.priority,
        "settled_at": fact.settled_at,
        "resolution_stands": fact.resolution_stands,
        "responded_at": fact.response and fact.response.at,
        "responder": fact.response and fact.response.agent,
        "closed_at": fact.closing and fact.closing.at,
        "closing_agent": fact.closing and fact.closing.agent,
        **_arrays("assignment", fact.assignments),
        **_arrays("resolution", fact.resolutions),
        **_arrays("reopening", fact.reopenings),
        **_arrays("rating", fact.ratings),
        "ratings": [each.rating for each in fact.ratings],
    }


def _arrays(kind: str, happenings: Sequence[Happening | Rating]) -> dict[str, object]:
    return {
        f"{kind}_times": [happening.at for happening in happenings],
        f"{kind}_agents": [happening.agent for happening in happenings],
    }
