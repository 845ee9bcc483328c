"""A statement as psycopg runs it: text with numbered parameters, and which value each number stands for."""

from collections.abc import Mapping
from enum import Enum
from typing import Any, NamedTuple

from psycopg import Connection, RawCursor


class Sharing(Enum):
    """Whether a statement may be sent together with others, over a connection that callers share; see pipeline.py."""

    NONE = "it is on its own"
    READS = "it reads a few rows by an index, and changes nothing"
    WRITES = "it locks no row beside the one of its parameter `ticket_id`, and waits for nobody else's key"


SHARED = (Sharing.READS, Sharing.WRITES)


class Statement(NamedTuple):
    """SQL text, and the names of its parameters in the order of their numbers."""

    sql: str
    names: tuple[str, ...]
    sharing: Sharing = Sharing.NONE

    def bind(self, values: Mapping[str, object]) -> tuple[object, ...]:
        """The parameters in order; a missing name is a KeyError, names that are not used are passed over."""
        return tuple([values[name] for name in self.names])


def fetch(connection: Connection[Any], statement: Statement, values: Mapping[str, object]) -> list[tuple[Any, ...]]:
    """The rows of a statement, for those who wait for PostgreSQL in a thread; an API has `Database`.

    One at a time: amid a pipeline PostgreSQL would wait for a frozen client without end.
    """
    cursor = RawCursor(connection)
    cursor.execute(statement.sql, statement.bind(values), prepare=True, binary=True)
    return cursor.fetchall()
