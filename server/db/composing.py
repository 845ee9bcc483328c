"""What the compositions are written with; `make generate` compiles them, and no running service does."""

from typing import Any

from sqlalchemy import DateTime, Text, Uuid, bindparam
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.elements import BindParameter, ClauseElement
from sqlalchemy.types import TypeEngine

from server.db.statement import Sharing, Statement

# PostgreSQL's own placeholders ($1, $2, …): psycopg has nothing left to parse. The casts that SQLAlchemy renders tell
# PostgreSQL each parameter's type.
_dialect = PGDialect_psycopg(paramstyle="numeric_dollar")  # type: ignore[no-untyped-call]

_MOMENT = DateTime(timezone=True)


def compiled(statement: ClauseElement, *, sharing: Sharing = Sharing.NONE) -> Statement:
    """What SQLAlchemy composed, as text."""
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
