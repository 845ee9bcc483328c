"""The gateway and the service behind it do what the OpenAPI document says, whatever is sent, and nothing else."""

import os
import random
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from protos import generate
from protos.calls import PERMITTED
from tests.system.doors import EVERY_CALL, Caller, is_stream
from tests.system.explorer import Cast, Findings, explore
from tests.system.staffing import hire
from tests.system.stage import Stage
from tests.system.vocabulary import as_supervisor, comment, move, new_id, open_ticket, rate

# For a longer look, or for another one at what was found: EXPLORE_EXAMPLES=1000 EXPLORE_SEED=7
EXAMPLES = int(os.environ.get("EXPLORE_EXAMPLES", "12"))
SEED = int(os.environ.get("EXPLORE_SEED") or random.randrange(2**32))  # noqa: S311

ROLES = ["customer", "support_agent", "support_supervisor"]
CALLERS = 8
"""So many take turns that none of them comes near a rate limit."""


def some_tickets(stage: Stage, owner: Caller, comments: dict[str, str]) -> Iterator[dict[str, Any]]:
    """One of each status, with a comment, whose id goes into `comments`; those that can be are rated."""
    supervisor = as_supervisor()
    for status in ("open", "in_progress", "resolved", "closed"):
        ticket = open_ticket(stage.rest, owner, order_id=new_id())
        comments[ticket["id"]] = comment(stage.rest, supervisor, ticket)["id"]
        yield ticket if status == "open" else move(stage.rest, supervisor, ticket, status)
        if status in ("resolved", "closed"):
            rate(stage.rest, owner, ticket)


@pytest.mark.timeout(240 + 30 * EXAMPLES)
@pytest.mark.parametrize("role", ROLES)
def test_every_answer_to_every_request_is_as_the_document_says(stage: Stage, role: str) -> None:
    print(f"EXPLORE_EXAMPLES={EXAMPLES} EXPLORE_SEED={SEED}")  # noqa: T201 - shown with a failure
    callers = [Caller(role, new_id()) for _ in range(CALLERS)]
    owners = callers if role == "customer" else [Caller("customer", new_id()) for _ in callers]
    comments: dict[str, str] = {}
    tickets = [ticket for owner in owners for ticket in some_tickets(stage, owner, comments)]
    for caller in callers if role != "customer" else ():
        hire(stage.rest, caller)
    document = without_streams(yaml.safe_load((generate.GENERATED / "openapi.yaml").read_text(encoding="utf-8")))
    cast = Cast(callers, stage.mint, tickets, comments)
    expected = answers_expected(role)
    refused = [operation for operation, status in expected.items() if status == 403]
    found = explore(document, stage.stack.gateway_url, cast, seed=SEED, examples=EXAMPLES, refused=refused)
    assert [f"{it.check}: {it.operation}\n{it.message}\n{it.command}" for it in found.wrong] == []
    assert_it_was_looked_at(expected, found)


def without_streams(document: dict[str, Any]) -> dict[str, Any]:
    """The document without the calls whose answer has no end soon: the explorer reads each answer whole."""
    paths = {binding.path for call, binding in EVERY_CALL.items() if is_stream(call)}
    return {**document, "paths": {path: it for path, it in document["paths"].items() if path not in paths}}


def answers_expected(role: str) -> dict[str, int]:
    """By operation, the status of a call that is right in all but, perhaps, the role of the caller."""
    calls = {call: it for call, it in EVERY_CALL.items() if not is_stream(call)}
    return {
        f"{it.verb} {it.path}": 200 if role in PERMITTED[f"{it.service}.{call}"] else 403 for call, it in calls.items()
    }


def assert_it_was_looked_at(expected: dict[str, int], found: Findings) -> None:
    """Each call that the role may make went well at least once, and the others were refused for the role."""
    seen = Counter({operation: found.answers[operation, status] for operation, status in expected.items()})
    print(f"{found.answers.total()} answers; the rarest as they should be: {seen.most_common()[:-4:-1]}")  # noqa: T201
    assert [operation for operation, times in seen.items() if not times] == []


def test_a_header_that_grpc_can_not_carry_costs_its_sender_nothing(stage: Stage) -> None:
    token = stage.mint(as_supervisor())
    for name in "!#$%&'*+^`|~":
        headers = {"authorization": f"Bearer {token}", name: "1", f"x{name}y": "1"}
        assert stage.rest.http.get("/api/v1/tickets/my", headers=headers).status_code == 200, name


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "TRACE"])
def test_a_method_that_a_path_does_not_take_is_said_to_be_that_whatever_the_query(stage: Stage, method: str) -> None:
    answer = stage.rest.http.request(method, "/api/v1/tickets/my?status=open&Status")
    assert answer.status_code == 405
    assert answer.headers["allow"] == "GET"
