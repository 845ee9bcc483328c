"""Stands in for the Order Service on a development machine: a gRPC server that knows every order.

Whose order it is comes from the last 12 digits of its id: 01920000-0000-7000-8000-0000000012ab is an order of the
customer 01920000-0000-7000-8000-0000000012ab, at the restaurant …-9000-0000000012ab, with the driver
…-a000-0000000012ab. It tells card numbers, IBANs and security codes in full, as no service should. The orders it takes
beside those in grpc_stand_in.py:

- `behaviour: malicious`, `how`: `huge` (default), an answer of `bytes` bytes (default 8 MiB); `deep`, one with
  fields in fields in fields, `levels` of them (default 100,000); `bad_utf8`; `texts`, a card number, control characters
  and too much in every text; `numbers`, amounts, counts and times that can't be; `another_order`, which nobody asked
  for.
- `orders`: by id what is told of an order instead, as the JSON of nibble.order.v1.Order, or null when there is no such
  order.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

from google.protobuf import json_format
from google.protobuf.timestamp_pb2 import Timestamp
from nibble.order.v1 import order_pb2, order_service_pb2

from devstack.control import Control, Orders
from devstack.grpc_stand_in import GrpcStandIn, is_uuid

NAME = "order-service"
HUGE = 8 << 20
DEEP = 100_000

CARD = "4111 1111 1111 1111"
IBAN = "DE89 3704 0044 0532 0130 00"
CVV = "737"
PLACED_AT = datetime(2026, 3, 4, 18, 0, tzinfo=UTC)

# Of field 15, which Order does not have: the beginning and the end of a group.
_GROUP_BEGINS, _GROUP_ENDS = b"\x7b", b"\x7c"
# Field 5, the status, of two bytes that are no UTF-8.
_BAD_STATUS = b"\x2a\x02\xff\xfe"


class InsecureDevelopmentOrderService(GrpcStandIn[order_service_pb2.GetOrderRequest]):
    """Tells everything about any order to whoever asks: never for production."""

    service = order_service_pb2.DESCRIPTOR.services_by_name["OrderService"]
    method = "GetOrder"
    request_type = order_service_pb2.GetOrderRequest

    def objection(self, request: order_service_pb2.GetOrderRequest) -> str | None:
        """An id that is none."""
        return None if is_uuid(request.order_id) else "order_id: a UUID is expected"

    def answer(self, request: order_service_pb2.GetOrderRequest, orders: Orders) -> order_pb2.Order | None:
        """The order, unless it is ordered that there is none."""
        told: Mapping[str, Any] = orders.get("orders", {})
        instead = told.get(request.order_id, {})
        return None if instead is None else json_format.ParseDict(instead, usual_order(request.order_id))

    def malice(self, request: order_service_pb2.GetOrderRequest, orders: Orders) -> bytes:
        """By the `how` of the orders."""
        order = usual_order(request.order_id)
        match orders.get("how", "huge"):
            case "deep":
                return order.SerializeToString() + _nested(orders.get("levels", DEEP))
            case "bad_utf8":
                return order.SerializeToString() + _BAD_STATUS
            case "texts":
                return _with_malicious_texts(order).SerializeToString()
            case "numbers":
                return _with_malicious_numbers(order).SerializeToString()
            case "another_order":
                return usual_order(str(uuid4())).SerializeToString()
        return _padded(order, orders.get("bytes", HUGE)).SerializeToString()


async def run(run_dir: Path, host: str, port: int) -> None:
    """Serves with the orders in that folder until SIGTERM or SIGINT."""
    print("warning: an InsecureDevelopmentOrderService answers here: it knows every order, and none", flush=True)
    await InsecureDevelopmentOrderService(Control(run_dir, NAME)).serve(host, port)


def usual_order(order_id: str) -> order_pb2.Order:
    """What is told of an order, unless the orders say otherwise."""
    tail = order_id.lower().rpartition("-")[2]
    return order_pb2.Order(
        id=order_id,
        customer_id=f"01920000-0000-7000-8000-{tail}",
        restaurant_id=f"01920000-0000-7000-9000-{tail}",
        driver_id=f"01920000-0000-7000-a000-{tail}",
        status="delivered",
        placed_at=_at(0),
        items=[
            order_pb2.Order.Item(name="Margherita", quantity=2, price=1980),
            order_pb2.Order.Item(name="Lemonade 0.5 l", quantity=1, price=350),
        ],
        total=2580,
        currency="EUR",
        status_history=[
            order_pb2.Order.Step(status="placed", at=_at(0)),
            order_pb2.Order.Step(status="accepted", at=_at(2)),
            order_pb2.Order.Step(status="delivered", at=_at(40)),
        ],
        payment=order_pb2.Order.Payment(
            method="card", state="captured", amount=2580, card_number=CARD, iban=IBAN, cvv=CVV
        ),
        delivery=order_pb2.Order.Delivery(
            recipient_name="Ann Lee",
            address_lines=["Long Street 12", "10115 Berlin"],
            instructions="Ring twice, third floor.",
            estimated_at=_at(35),
            delivered_at=_at(40),
        ),
    )


def _nested(levels: int) -> bytes:
    return _GROUP_BEGINS * levels + _GROUP_ENDS * levels


def _at(minutes: int) -> Timestamp:
    """So long after the order was placed."""
    moment = Timestamp()
    moment.FromDatetime(PLACED_AT + timedelta(minutes=minutes))
    return moment


def _with_malicious_texts(order: order_pb2.Order) -> order_pb2.Order:
    text = f"\x1b[2J\x00\u202e{CARD}/12/27/{CVV} {IBAN} {CARD.replace(' ', '')} " + "x" * 600
    order.customer_id = order.restaurant_id = order.driver_id = order.status = order.currency = text
    for item in order.items:
        item.name = text
    for step in order.status_history:
        step.status = text
    for field in ("method", "state", "card_number", "iban", "cvv"):
        setattr(order.payment, field, text)
    order.delivery.recipient_name = order.delivery.instructions = text
    order.delivery.address_lines[:] = [text] * 40
    return order


def _with_malicious_numbers(order: order_pb2.Order) -> order_pb2.Order:
    order.total = order.payment.amount = -(2**31)
    for item, number in zip(order.items, (2**31 - 1, -1), strict=True):
        item.quantity = item.price = number
    for time, seconds in (
        (order.placed_at, 2**63 - 1),
        (order.status_history[0].at, -(2**63)),
        (order.delivery.estimated_at, -(10**10)),
        (order.delivery.delivered_at, 0),
    ):
        time.seconds, time.nanos = seconds, -1
    return order


def _padded(order: order_pb2.Order, size: int) -> order_pb2.Order:
    """The order with so many items more that it has about, and at most, `size` bytes."""
    item = order_pb2.Order.Item(name="1" * 400, quantity=1, price=1)
    each = len(order_pb2.Order(items=[item]).SerializeToString())
    order.items.extend([item] * ((size - order.ByteSize()) // each))
    return order
