"""The memory of a consumer: which events it has applied, in a table that every consuming service has in its own schema.

A row is written in the transaction that applies its event, so an event is applied if and only if it stands here.
"""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from psycopg import Connection, sql

TABLE = "consumed_events"


class Mark(NamedTuple):
    """What is remembered of an event."""

    event_id: UUID
    ticket_id: UUID
    sequence: int


class Remembered(NamedTuple):
    """What became of marks: written now, or left out since they contradict what is remembered.

    A mark in neither was there before: its event is a duplicate.
    """

    new: Collection[Mark]
    contradicting: Collection[Mark]


class ConsumedEvents:
    """Reads and writes the table of one schema."""

    def __init__(self, schema: str) -> None:
        table = sql.Identifier(schema, TABLE)
        # Without a conflict target. With `(event_id)` two consumers that write the same row at the same moment, as they
        # may around a rebalance, now and then fail at the other constraint: a duplicate would be a contradiction.
        self._remember = sql.SQL(
            "INSERT INTO {} (event_id, ticket_id, sequence, consumed_at)"
            " SELECT *, $4 FROM unnest($1::uuid[], $2::uuid[], $3::int[])"
            " ON CONFLICT DO NOTHING RETURNING event_id, ticket_id, sequence"
        ).format(table)
        self._look_up = sql.SQL("SELECT event_id, ticket_id, sequence FROM {} WHERE event_id = ANY ($1)").format(table)

    def remember(self, connection: Connection[Any], marks: Sequence[Mark], now: datetime) -> Remembered:
        """Write the marks that are new, in the caller's transaction; of two that contradict each other, the first.

        Waits for other consumers that are just writing one of them.
        """
        # In one order, whoever writes them, so that two consumers with the same events don't deadlock. Marks of the
        # same ticket and sequence keep theirs.
        unique = sorted(dict.fromkeys(marks), key=lambda mark: (mark.ticket_id, mark.sequence))
        columns = ([mark[i] for mark in unique] for i in range(len(Mark._fields)))
        new = set(map(Mark._make, connection.execute(self._remember, [*columns, now], prepare=True)))
        rest = [mark for mark in unique if mark not in new]
        return Remembered(new, self._not_there(connection, rest) if rest else ())

    def _not_there(self, connection: Connection[Any], marks: Sequence[Mark]) -> Collection[Mark]:
        rows = connection.execute(self._look_up, [[mark.event_id for mark in marks]], prepare=True)
        return set(marks) - set(map(Mark._make, rows))
