"""The texts of the statements that the service composes: with these in their place it starts without SQLAlchemy."""

from types import ModuleType

from server.analytics import compositions as of_analytics
from server.db import compositions as of_support
from server.db.statement import Statement
from server.notification import compositions as of_notification

_COMPOSITIONS = {"support": of_support, "notification": of_notification, "analytics": of_analytics}


def modules() -> dict[str, str]:
    """The text of a module of `Statement`s for each service, by the service's name."""
    return {service: module(compositions) for service, compositions in _COMPOSITIONS.items()}


def composed(compositions: ModuleType) -> dict[str, Statement]:
    """The statements that a module has for others, by their names, in its order."""
    return {
        name: value
        for name, value in vars(compositions).items()
        if isinstance(value, Statement) and not name.startswith("_")
    }


def module(compositions: ModuleType) -> str:
    """The text of one; ValueError where a statement is none that can be written down."""
    path = compositions.__name__.replace(".", "/")
    head = f'"""Written by `make generate` from {path}.py, which explains each statement."""\n\n'
    imports = "from server.db.statement import Sharing, Statement\n"
    return head + imports + "".join(_assignment(*named) for named in composed(compositions).items())


def _assignment(name: str, statement: Statement) -> str:
    """Line by line, as it is read and compared; SQL has no quotes of three and escapes nothing."""
    if '"""' in statement.sql or "\\" in statement.sql or statement.sql.endswith('"'):
        raise ValueError(f"{name} can't be written down as it is")
    sharing = f"{type(statement.sharing).__name__}.{statement.sharing.name}"
    return f'\n{name} = Statement(\n    """{statement.sql}""",\n    {statement.names!r},\n    {sharing},\n)\n'
