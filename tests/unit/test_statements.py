"""Every statement is text with numbered parameters; a running service composes nothing, not even at its start."""

import ast
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import server
from protos import sql
from server.analytics import compositions as of_analytics
from server.analytics import statements as analytics_statements
from server.db import compositions as of_support
from server.db import statements
from server.db.statement import Statement
from server.notification import compositions as of_notification
from server.notification import statements as notification_statements

STATEMENTS = {
    name: value
    for module in (statements, notification_statements, analytics_statements)
    for name, value in vars(module).items()
    if isinstance(value, Statement)
}
SERVER = Path(server.__file__).parent
# Where statements and tables are composed, in whichever service; migrations are run beside them.
COMPOSERS = {"composing.py", "compositions.py", "tables.py", "consumed_table.py"}
MIGRATORS = {"migrations", "migrator"}
every_statement = pytest.mark.parametrize("statement", STATEMENTS.values(), ids=STATEMENTS)


def test_there_are_statements() -> None:
    assert {"CREATE_TICKET", "CHANGE_TICKET", "ADD_COMMENT", "GET_TICKET", "LIST_TICKETS", "CLAIM_EMAILS"} <= set(
        STATEMENTS
    )


@every_statement
def test_placeholders_count_from_1_to_the_number_of_names(statement: Statement) -> None:
    used = {int(number) for number in re.findall(r"\$(\d+)", statement.sql)}
    assert used == set(range(1, len(statement.names) + 1))


@every_statement
def test_each_name_is_sent_once(statement: Statement) -> None:
    assert len(set(statement.names)) == len(statement.names)


@every_statement
def test_no_placeholder_of_another_style_is_left(statement: Statement) -> None:
    assert not re.search(r"%\(|%s|POSTCOMPILE|(?<!:):[a-z]", statement.sql)


@every_statement
def test_parameters_are_bound_in_the_order_of_their_numbers(statement: Statement) -> None:
    values = {name: object() for name in statement.names}
    assert statement.bind(values) == tuple(values[name] for name in statement.names)


@every_statement
def test_names_that_are_not_used_are_passed_over_and_missing_ones_are_not(statement: Statement) -> None:
    values: dict[str, object] = dict.fromkeys(statement.names)
    assert len(statement.bind(values | {"something else": 1})) == len(statement.names)
    for name in statement.names:
        with pytest.raises(KeyError, match=name):
            statement.bind({other: None for other in statement.names if other != name})


@pytest.mark.parametrize(
    "name", ["CREATE_TICKET", "CREATE_TICKET_ONCE", "CHANGE_TICKET", "ADD_COMMENT", "ADD_COMMENT_ONCE"]
)
def test_a_write_is_one_statement_with_its_events_in_it(name: str) -> None:
    sql = STATEMENTS[name].sql
    assert "INSERT INTO admin_service.ticket_events" in sql
    assert ";" not in sql


def test_nothing_beside_tables_and_compositions_composes_sql() -> None:
    composers = [path for path in _modules() if any(_composes(name) for name in _imports(path))]
    assert {"db/compositions.py", "db/tables.py"} <= {path.relative_to(SERVER).as_posix() for path in composers}
    assert {path.name for path in composers} <= COMPOSERS


def test_statements_are_compiled_by_compositions_alone() -> None:
    for path in _modules():
        if path.name not in COMPOSERS:
            assert not re.search(r"\bcompiled\(", path.read_text()), path


@pytest.mark.parametrize(
    ("texts", "compositions"),
    [
        (statements, of_support),
        (notification_statements, of_notification),
        (analytics_statements, of_analytics),
    ],
    ids=["support", "notification", "analytics"],
)
def test_what_runs_is_what_is_composed(texts: ModuleType, compositions: ModuleType) -> None:
    assert sql.composed(texts) == sql.composed(compositions)


def test_what_can_not_be_written_down_word_by_word_is_refused() -> None:
    for text in ("SELECT E'\\n'", 'SELECT """', 'SELECT 1 AS "one"'):
        composing = ModuleType("composing")
        composing.__dict__["IT"] = Statement(text, ())
        with pytest.raises(ValueError, match="IT"):
            sql.module(composing)


def test_whatever_does_not_compose_is_imported_where_there_is_no_sqlalchemy() -> None:
    modules = [path.relative_to(SERVER.parent).with_suffix("") for path in _modules() if path.name not in COMPOSERS]
    names = [".".join(path.parts).removesuffix(".__init__") for path in modules]
    assert {"server.app.support", "server.workers.relay", "server.db.statements"} <= set(names)
    imports = f"import importlib, sys; sys.modules['sqlalchemy'] = None; [*map(importlib.import_module, {names})]"
    subprocess.run([sys.executable, "-c", imports], cwd=SERVER.parent, check=True, timeout=60)


def _modules() -> list[Path]:
    """Every module of the service but those of migrations."""
    return [path for path in SERVER.rglob("*.py") if not MIGRATORS & set(path.parts)]


def _composes(module: str) -> bool:
    """Whether it is a part of SQLAlchemy; its errors compose nothing."""
    return module.split(".")[0] == "sqlalchemy" and module != "sqlalchemy.exc"


def _imports(path: Path) -> set[str]:
    """The modules that a module imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
    return found
