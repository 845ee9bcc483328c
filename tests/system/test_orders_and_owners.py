"""What staff see of a ticket's order and owner over REST, whatever the services say that they are asked of."""

import re
from collections.abc import Iterator
from typing import Any

import pytest

from devstack.order_service import CARD, CVV, IBAN
from devstack.user_service import address_of, name_of
from server.clients.breaker import FAILURES
from tests.system.doors import Caller
from tests.system.other_services import RECOVERY_SECONDS, are_found, misbehaving
from tests.system.stage import Stage
from tests.system.vocabulary import as_agent, as_customer, as_supervisor, eventually, new_id, open_ticket

TAIL = "0000000012ab"
ORDER_ID, CUSTOMER = f"01920000-0000-7000-b000-{TAIL}", f"01920000-0000-7000-8000-{TAIL}"
TIMES = {"fetched_at", "placed_at", "at", "estimated_at", "delivered_at"}
CODE = "9137"


@pytest.fixture(autouse=True)
def _services_are_well(stage: Stage) -> None:
    are_found(stage)


def order_of(stage: Stage, ticket: dict[str, Any], caller: Caller | None = None) -> dict[str, Any]:
    return stage.rest.call("GetTicketOrder", caller or as_agent(), ticket_id=ticket["id"]).resource


def requester_of(stage: Stage, ticket: dict[str, Any]) -> dict[str, Any]:
    return stage.rest.call("GetTicketRequester", as_agent(), ticket_id=ticket["id"]).resource


def euros(cents: int) -> dict[str, Any]:
    return {"currency": "EUR", "minor_units": cents}


def test_staff_see_the_order_and_four_digits_of_what_pays(stage: Stage) -> None:
    ticket = open_ticket(stage.rest, Caller("customer", CUSTOMER), order_id=ORDER_ID)
    order = order_of(stage, ticket, as_supervisor())
    assert order.pop("fetched_at") >= ticket["created_at"]
    assert 0 <= order.pop("age_seconds") <= 1
    assert order == {
        "ticket_id": ticket["id"],
        "state": "current",
        "order_id": ORDER_ID,
        "owner_takes_part": True,
        "order": {
            "id": ORDER_ID,
            "customer_id": CUSTOMER,
            "restaurant_id": f"01920000-0000-7000-9000-{TAIL}",
            "driver_id": f"01920000-0000-7000-a000-{TAIL}",
            "status": "delivered",
            "placed_at": "2026-03-04T18:00:00Z",
            "items": [
                {"name": "Margherita", "quantity": 2, "price": euros(1980)},
                {"name": "Lemonade 0.5 l", "quantity": 1, "price": euros(350)},
            ],
            "total": euros(2580),
            "history": [
                {"status": "placed", "at": "2026-03-04T18:00:00Z"},
                {"status": "accepted", "at": "2026-03-04T18:02:00Z"},
                {"status": "delivered", "at": "2026-03-04T18:40:00Z"},
            ],
            "payment": {
                "method": "card",
                "state": "captured",
                "amount": euros(2580),
                "card_last_four": "1111",
                "iban_last_four": "3000",
            },
            "delivery": {
                "recipient": "Ann Lee",
                "address_lines": ["Long Street 12", "10115 Berlin"],
                "instructions": "Ring twice, third floor.",
                "estimated_at": "2026-03-04T18:35:00Z",
                "delivered_at": "2026-03-04T18:40:00Z",
            },
        },
    }


def test_a_ticket_about_no_order_says_so(stage: Stage) -> None:
    ticket = open_ticket(stage.rest, as_customer())
    assert order_of(stage, ticket) == {"ticket_id": ticket["id"], "state": "no_order"}


def test_staff_see_who_the_owner_is(stage: Stage) -> None:
    owner = as_customer()
    ticket = open_ticket(stage.rest, owner)
    assert requester_of(stage, ticket) == {
        "ticket_id": ticket["id"],
        "user_id": owner.id,
        "state": "known",
        "name": name_of(owner.id),
        "email": address_of(owner.id),
    }


def test_who_and_what_nobody_knows_is_said_to_be_unknown(stage: Stage) -> None:
    owner, order_id = as_customer(), new_id()
    with misbehaving(stage, orders={order_id: None}, users={owner.id: None}):
        ticket = open_ticket(stage.rest, owner, order_id=order_id)
        order = order_of(stage, ticket)
        assert order.keys() == {"ticket_id", "state", "order_id", "fetched_at", "age_seconds"}
        assert order["state"] == "unknown_order"
        assert requester_of(stage, ticket) == {"ticket_id": ticket["id"], "user_id": owner.id, "state": "unknown_user"}


def test_what_was_told_before_a_failure_is_a_snapshot_and_what_was_not_is_pending_until_the_sweep(stage: Stage) -> None:
    seen = open_ticket(stage.rest, as_customer(), order_id=new_id())
    current = order_of(stage, seen)
    with misbehaving(stage, behaviour="failing"):
        unseen = open_ticket(stage.rest, as_customer(), order_id=new_id())
        eventually(lambda: order_of(stage, seen)["state"] == "snapshot")
        snapshot = order_of(stage, seen)
        for _ in range(2 * FAILURES):
            assert order_of(stage, unseen) == {
                "ticket_id": unseen["id"], "state": "pending", "order_id": unseen["order_id"],
            }  # fmt: skip
            assert requester_of(stage, unseen)["state"] == "pending"
    assert snapshot.pop("age_seconds") >= 1
    assert snapshot == {name: it for name, it in current.items() if name != "age_seconds"} | {"state": "snapshot"}
    eventually(lambda: kept(stage, unseen).startswith("(known,"), RECOVERY_SECONDS)


def kept(stage: Stage, ticket: dict[str, Any]) -> str:
    """The ticket's row, as text, but for what is no word of the Order Service."""
    statement = "SELECT (state, snapshot)::text FROM admin_service.ticket_orders WHERE ticket_id = %s"
    return str(stage.query(statement, ticket["id"])[0][0])


# --- What is malicious ------------------------------------------------------------------------------------------------


def texts_in(answer: Any) -> Iterator[str]:  # noqa: ANN401 - any JSON
    """Every text that is neither an id nor a time."""
    if isinstance(answer, dict):
        for name, value in answer.items():
            yield from () if name in TIMES or name == "id" or name.endswith("_id") else texts_in(value)
    elif isinstance(answer, list):
        for value in answer:
            yield from texts_in(value)
    elif isinstance(answer, str):
        yield answer


def secrets_in(text: str, code: str = CVV) -> list[str]:
    """What of the stand-in's card, account and security code is in a text: five digits in a row are too many."""
    digits = re.sub(r"[\W_]", "", text)
    numbers = [number.replace(" ", "") for number in (CARD, IBAN[4:])]
    pieces = {number[start : start + 5] for number in numbers for start in range(len(number) - 4)}
    found = [piece for piece in pieces if piece in digits]
    return found + re.findall(rf"(?<![\d.:-]){code}(?![\d.:-])", text)


@pytest.mark.parametrize("how", ["texts", "numbers", "huge", "deep", "bad_utf8", "another_order"])
def test_nothing_malicious_reaches_staff_or_the_table(stage: Stage, how: str) -> None:
    with misbehaving(stage, behaviour="malicious", how=how):
        ticket = open_ticket(stage.rest, as_customer(), order_id=new_id())
        order = order_of(stage, ticket)
        requester = requester_of(stage, ticket)
    assert order["state"] == ("current" if how in ("texts", "numbers") else "pending")
    assert requester.keys() == {"ticket_id", "user_id", "state"}
    assert max(map(len, texts_in(order))) <= 500
    assert not [text for text in texts_in(order) if secrets_in(text) or not text.isprintable()]
    assert not secrets_in(kept(stage, ticket))


def test_no_log_tells_what_other_services_say(stage: Stage) -> None:
    order_id, owner = new_id(), as_customer()
    card = {"cvv": CODE}
    told = {order_id: {"payment": card, "delivery": {"instructions": f"CVC {CODE}, card {CARD}"}}}
    with misbehaving(stage, orders=told):
        ticket = open_ticket(stage.rest, owner, order_id=order_id)
        order = order_of(stage, ticket)
        assert order["order"]["delivery"]["instructions"] == f"CVC ****, card {'**** ' * 4}".strip()
        assert requester_of(stage, ticket)["state"] == "known"
    assert not secrets_in(kept(stage, ticket), CODE)
    logs = {log.name: log.read_text(errors="replace") for log in stage.stack.logs.iterdir() if log.is_file()}
    assert {"api.log", "sweeper.log", "postgres.log"} <= logs.keys()
    words = ["Margherita", "Ring twice", "Ann Lee", CARD, CARD.replace(" ", ""), IBAN.replace(" ", ""), CODE]
    words += [name_of(owner.id), address_of(owner.id)]
    assert {name: word for name, log in logs.items() for word in words if says(log, word)} == {}


def says(log: str, word: str) -> bool:
    """Whether a log has the word, and not as a part of a number or an id."""
    return re.search(rf"(?<![\w.:-]){re.escape(word)}(?![\w.:-])", log) is not None
