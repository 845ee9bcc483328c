"""Checks that no call is half made: each has its row in the permission table, its description in OpenAPI, and a test.

    python protos/calls.py

A call counts as tested when a test of the whole system names it: such tests make calls by name through every door.
"""

import ast
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a run by path finds only what lies beside the file

from protos import contract, generate
from server.analytics import permissions as analytics
from server.domain import permissions as support
from server.notification import permissions as notification

TESTS = generate.ROOT / "tests" / "system"
PERMITTED = {**support.MAY_CALL, **notification.MAY_CALL, **analytics.MAY_CALL}
"""The permission tables of all services."""


def complaints(calls: list[str], permitted: set[str], described: set[str], tested: set[str]) -> list[str]:
    """What is missing for each of `calls`, and which rows belong to no call; names are `Service.Method`.

    OpenAPI and tests know a call by its method alone.
    """
    found = []
    for call in calls:
        method = call.rpartition(".")[2]
        if call not in permitted:
            found.append(f"{call} has no row in its service's permission table")
        if method not in described:
            found.append(f"{call} has no operation with summary and description in generated/openapi.yaml")
        if method not in tested:
            found.append(f"{call} is named by no test in tests/system")
    return found + [f"{row} in a permission table is no call" for row in sorted(permitted - set(calls))]


def declared() -> list[str]:
    """The calls that the services in the protos offer; other teams look after theirs."""
    offered = contract.read(generate.image()).offered()
    return sorted(".".join(name.split(".")[-2:]) for name in offered)


def described(document: Mapping[str, Any]) -> set[str]:
    """The operations of an OpenAPI document that say what they do."""
    operations = (op for path in document["paths"].values() for op in path.values() if "operationId" in op)
    return {op["operationId"] for op in operations if op.get("summary") and op.get("description")}


def tested(folder: Path) -> set[str]:
    """Every string that stands in a test file below the folder."""
    return {text for path in folder.rglob("test_*.py") for text in _strings(ast.parse(path.read_text("utf-8")))}


def _strings(tree: ast.Module) -> Iterator[str]:
    return (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str))


def main() -> None:
    """Prints one line and exits 0, or prints the complaints and exits 1."""
    calls = declared()
    document = yaml.safe_load((generate.GENERATED / "openapi.yaml").read_text("utf-8"))
    if found := complaints(calls, set(PERMITTED), described(document), tested(TESTS)):
        sys.exit("\n".join(found))
    sys.stdout.write(f"calls: all {len(calls)} have a permission row, a description and a test\n")


if __name__ == "__main__":
    main()
