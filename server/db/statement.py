"""A statement as psycopg runs it: text with numbered parameters, and which value each number stands for."""

from collections.abc import Mapping
from enum import Enum
from typing import Any, NamedTuple

from psycopg import Connection, RawCursor
from sqlalchemy import DateTime, Text, Uuid, bindparam
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.elements import BindParameter, ClauseElement
from sqlalchemy.types import TypeEngine

# PostgreSQL's own placeholders ($1, $2, …): psycopg has nothing left to parse. The casts that SQLAlchemy renders tell
# PostgreSQL each parameter's type.
_dialect = PGDialect_psycopg(paramstyle="numeric_dollar")  # type: ignore[no-untyped-call]

_MOMENT = DateTime(timezone=True)


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


def compiled(statement: ClauseElement, *, sharing: Sharing = Sharing.NONE) -> Statement:
    """What SQLAlchemy composed, as text; to be called once, at import."""
    text = statement.compile(dialect=_dialect, compile_kwargs={"render_postcompile": True})
    if not isinstance(text, SQLCompiler):
        raise TypeError(f"{statement!r} is not a statement with parameters")
    return Statement(str(text), tuple(text.positiontup or ()), sharing)


def param(name: str, type_: TypeEngine[Any] | type[TypeEngine[Any]]) -> BindParameter[Any]:
    """A parameter of any type."""
    return bindparam(name, type_=type_)


def uuid(name: str) -> BindParameter[Any]:
    """A UUID."""
    return param(name, Uuid)


def text(name: str) -> BindParameter[Any]:
    """A text."""
    return param(name, Text)


def moment(name: str) -> BindParameter[Any]:
    """A time with its zone."""
    return param(name, _MOMENT)


def fetch(connection: Connection[Any], statement: Statement, values: Mapping[str, object]) -> list[tuple[Any, ...]]:
    """The rows of a statement, for those who wait for PostgreSQL in a thread; an API has `Database`.

    One at a time: amid a pipeline PostgreSQL would wait for a frozen client without end.
    """
    cursor = RawCursor(connection)
    cursor.execute(statement.sql, statement.bind(values), prepare=True, binary=True)
    return cursor.fetchall()
