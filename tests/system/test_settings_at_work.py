"""Settings that change what callers see reach the place where they count; one API process of its own has them."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.fault.api_process import serving
from tests.system.doors import Grpc
from tests.system.stage import Stage
from tests.system.vocabulary import as_agent, as_customer, comment, eventually, move, new_id, open_ticket

KEY_TTL_SECONDS = 1.5
SETTINGS = {
    "REOPEN_ON_COMMENT": "false",
    "IDEMPOTENCY_KEY_TTL_SECONDS": str(KEY_TTL_SECONDS),
    "MAX_REQUEST_BYTES": "20000",
    "PAGE_TOKEN_KEY": "another-key-that-no-other-worker-has",
}


@pytest.fixture(scope="module")
def other(stage: Stage) -> Iterator[Grpc]:
    """The door to a process with these settings, on the same database."""
    with serving(stage, **SETTINGS) as process:
        yield process.door


def status_of(door: Grpc, ticket: dict[str, Any]) -> str:
    status: str = door.call("GetTicket", as_agent(), ticket_id=ticket["id"]).resource["status"]
    return status


def test_a_comment_reopens_a_ticket_unless_that_is_switched_off(stage: Stage, other: Grpc) -> None:
    owner = as_customer()
    ticket = open_ticket(other, owner)
    move(other, as_agent(), ticket, "resolved")

    comment(other, owner, ticket)
    assert status_of(other, ticket) == "resolved"
    comment(stage.own_port, owner, ticket)
    assert status_of(other, ticket) == "in_progress"


def test_an_idempotency_key_is_kept_as_long_as_it_is_set(stage: Stage, other: Grpc) -> None:
    owner, key = as_customer(), new_id()
    first = open_ticket(other, owner, key=key)
    assert open_ticket(stage.own_port, owner, key=key) == first

    def another() -> dict[str, Any] | None:
        ticket = open_ticket(other, owner, key=key)
        return None if ticket == first else ticket

    second = eventually(another)
    kept = datetime.fromisoformat(second["created_at"]) - datetime.fromisoformat(first["created_at"])
    assert kept >= timedelta(seconds=KEY_TTL_SECONDS)


def test_the_largest_request_is_as_large_as_it_is_set(stage: Stage, other: Grpc) -> None:
    owner, texts = as_customer(), {"subject": "s", "description": " " * 20_000 + "d"}
    refused = other.call("CreateTicket", owner, **texts)
    assert (refused.code, refused.reason) == (8, "REQUEST_TOO_LARGE")
    assert stage.own_port.call("CreateTicket", owner, **texts).resource["description"] == "d"


def test_a_page_token_that_was_sealed_with_another_key_is_refused(stage: Stage, other: Grpc) -> None:
    owner = as_customer()
    for _ in range(2):
        open_ticket(other, owner)
    token = other.call("ListMyTickets", owner, page_size=1).resource["next_page_token"]
    assert other.call("ListMyTickets", owner, page_token=token).code == 0
    assert stage.own_port.call("ListMyTickets", owner, page_token=token).bad_fields == ["page_token"]
