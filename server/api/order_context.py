"""What other services tell of a ticket, as messages."""

from uuid import UUID

from nibble.support.v1.ticket_order_pb2 import TicketOrder
from nibble.support.v1.ticket_requester_pb2 import TicketRequester

from server.domain import orders, requesters, ticket_orders

_ORDER_STATE = dict(TicketOrder.State.items())
_REQUESTER_STATE = dict(TicketRequester.State.items())

# protobuf takes a datetime for a Timestamp; the generated stubs don't know that yet, hence the ignores below.


def ticket_order_message(known: ticket_orders.TicketOrder) -> TicketOrder:
    """What is not known stays absent."""
    return TicketOrder(
        ticket_id=str(known.ticket_id),
        state=_ORDER_STATE[known.state],
        order_id=_optional(known.order_id),
        fetched_at=known.fetched_at,  # type: ignore[arg-type]
        age_seconds=None if known.age is None else int(known.age.total_seconds()),
        order=None if known.order is None else _order(known.order),
        owner_takes_part=known.owner_takes_part,
    )


def ticket_requester_message(known: requesters.TicketRequester) -> TicketRequester:
    """What is not known stays absent."""
    return TicketRequester(
        ticket_id=str(known.ticket_id),
        user_id=str(known.user_id),
        state=_REQUESTER_STATE[known.state],
        name=known.user.name if known.user else None,
        email=known.user.email if known.user else None,
    )


def _order(order: orders.Order) -> TicketOrder.Order:
    return TicketOrder.Order(
        id=str(order.id),
        customer_id=_optional(order.customer_id),
        restaurant_id=_optional(order.restaurant_id),
        driver_id=_optional(order.driver_id),
        status=order.status,
        placed_at=order.placed_at,  # type: ignore[arg-type]
        items=[
            TicketOrder.Item(name=item.name, quantity=item.quantity, price=_money(item.price)) for item in order.items
        ],
        total=_money(order.total),
        history=[
            TicketOrder.Step(status=step.status, at=step.at)  # type: ignore[arg-type]
            for step in order.history
        ],
        payment=None if order.payment is None else _payment(order.payment),
        delivery=None if order.delivery is None else _delivery(order.delivery),
    )


def _payment(payment: orders.Payment) -> TicketOrder.Payment:
    return TicketOrder.Payment(
        method=payment.method,
        state=payment.state,
        amount=_money(payment.amount),
        card_last_four=payment.card_last_four,
        iban_last_four=payment.iban_last_four,
    )


def _delivery(delivery: orders.Delivery) -> TicketOrder.Delivery:
    return TicketOrder.Delivery(
        recipient=delivery.recipient,
        address_lines=delivery.address_lines,
        instructions=delivery.instructions,
        estimated_at=delivery.estimated_at,  # type: ignore[arg-type]
        delivered_at=delivery.delivered_at,  # type: ignore[arg-type]
    )


def _money(money: orders.Money | None) -> TicketOrder.Money | None:
    return None if money is None else TicketOrder.Money(currency=money.currency, minor_units=money.minor_units)


def _optional(value: UUID | None) -> str | None:
    return None if value is None else str(value)
