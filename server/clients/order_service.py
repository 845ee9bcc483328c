"""The Order Service (`nibble.order.v1`): what was ordered, and what became of it. For an event loop.

What it answers passes through `server.domain.orders.Cleaning`, value by value, before anybody here sees it.
"""

from collections.abc import Callable
from datetime import datetime
from uuid import UUID

import grpc
from google.protobuf.timestamp_pb2 import Timestamp
from nibble.order.v1 import order_pb2, order_service_pb2

from server import telemetry
from server.clients import channel
from server.clients.bearer import BearerFile
from server.clients.callee import Callee, Known, Metadata, UnusableAnswer
from server.clients.in_flight import InFlight
from server.domain.orders import Cleaning, Delivery, Item, Order, Payment, Step, oldest_first
from server.domain.payment_numbers import Mask, last_four_of_card, last_four_of_iban
from server.errors import OrderServiceUnavailable

KNOWN = Known(
    "the Order Service", OrderServiceUnavailable, telemetry.ORDER_SERVICE_CALLS, telemetry.ORDER_SERVICE_OPEN
)  # fmt: skip
# A hundred items and a long address have a quarter of that; reading it takes a tenth of a second at the worst.
LARGEST_ANSWER = 1 << 16
_METHOD = f"/{order_service_pb2.DESCRIPTOR.services_by_name['OrderService'].full_name}/GetOrder"


def connect(target: str) -> grpc.aio.Channel:
    """A channel to the Order Service at `target` (host:port); see channel.connect."""
    return channel.connect(target, LARGEST_ANSWER)


class OrderBook:
    """Looks orders up, one in a call; who asks for one that is being asked for gets the same answer.

    For one event loop. It keeps the channel as its own.
    """

    def __init__(
        self, channel: grpc.aio.Channel, clock: Callable[[], float], timeout: float, token: BearerFile | None = None
    ) -> None:
        """Args: clock: monotonic seconds; timeout: the deadline of each call, in seconds; token: who is asking."""
        # Bytes come back: of what is no message gRPC would write a traceback into the log, and answer None.
        self._get_order: grpc.aio.UnaryUnaryMultiCallable[order_service_pb2.GetOrderRequest, bytes] = (
            channel.unary_unary(_METHOD, request_serializer=order_service_pb2.GetOrderRequest.SerializeToString)
        )
        self._channel = channel
        self._timeout = timeout
        self._service = Callee(KNOWN, clock, token)
        self._in_flight = InFlight(self._ask)

    async def close(self) -> None:
        """Hang up; nothing can be asked from then on."""
        await self._channel.close()

    def room(self, most: int) -> int:
        """How many of `most` questions are worth asking just now; see Callee.room."""
        return self._service.room(most)

    async def order(self, order_id: UUID) -> Order | None:
        """The order with this id; None where there is none.

        Raises:
            OrderServiceUnavailable: it could not be asked for, or what came is not this order; at once while the
                breaker is open or too many ask.
        """
        return await self._in_flight.answer(order_id)

    async def _ask(self, order_id: UUID) -> Order | None:
        with self._service.call() as metadata:
            answer = await self._answer(order_id, metadata)
            return None if answer is None else read_order(order_id, answer)

    async def _answer(self, order_id: UUID, metadata: Metadata) -> order_pb2.Order | None:
        request = order_service_pb2.GetOrderRequest(order_id=str(order_id))
        try:
            answer = await self._get_order(request, timeout=self._timeout, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                return None
            raise
        return order_pb2.Order.FromString(answer)


def read_order(order_id: UUID, told: order_pb2.Order) -> Order:
    """The order that was asked for, from what was told of it.

    Raises:
        UnusableAnswer: it is another one.
    """
    numbers = told.payment.card_number, told.payment.iban, told.payment.cvv
    clean = Cleaning(Mask(*numbers), told.currency)
    if clean.id(told.id) != order_id:
        raise UnusableAnswer("it is another order")
    return Order(
        id=order_id,
        customer_id=clean.id(told.customer_id),
        restaurant_id=clean.id(told.restaurant_id),
        driver_id=clean.id(told.driver_id),
        status=clean.text(told.status),
        placed_at=_time(clean, told.placed_at),
        items=tuple(_item(clean, item) for item in clean.entries(told.items)),
        total=clean.money(told.total),
        history=oldest_first(_step(clean, step) for step in clean.entries(told.status_history)),
        payment=_payment(clean, told.payment) if told.HasField("payment") else None,
        delivery=_delivery(clean, told.delivery) if told.HasField("delivery") else None,
    )


def _time(clean: Cleaning, moment: Timestamp) -> datetime | None:
    # One that was not told is 1970, which is no time of an order.
    return clean.time(moment.seconds, moment.nanos)


def _item(clean: Cleaning, item: order_pb2.Order.Item) -> Item:
    return Item(clean.text(item.name), clean.quantity(item.quantity), clean.money(item.price))


def _step(clean: Cleaning, step: order_pb2.Order.Step) -> Step:
    return Step(clean.text(step.status), _time(clean, step.at))


def _payment(clean: Cleaning, payment: order_pb2.Order.Payment) -> Payment:
    return Payment(
        method=clean.text(payment.method),
        state=clean.text(payment.state),
        amount=clean.money(payment.amount),
        card_last_four=last_four_of_card(payment.card_number),
        iban_last_four=last_four_of_iban(payment.iban),
    )


def _delivery(clean: Cleaning, delivery: order_pb2.Order.Delivery) -> Delivery:
    return Delivery(
        recipient=clean.text(delivery.recipient_name),
        address_lines=tuple(clean.text(line) for line in clean.entries(delivery.address_lines)),
        instructions=clean.optional_text(delivery.instructions),
        estimated_at=_time(clean, delivery.estimated_at),
        delivered_at=_time(clean, delivery.delivered_at),
    )
