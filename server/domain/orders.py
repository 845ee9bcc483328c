"""What an order was and what became of it, as the Order Service tells it, made fit to be stored and shown.

Every value of that service passes through `Cleaning` on its way into an `Order`, so an `Order` holds no full number of
a card or an account, no text that could do harm, and no more than support has use for.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

from server.domain.foreign_texts import on_one_line
from server.domain.payment_numbers import LONGEST_WRITTEN_NUMBER, Mask
from server.domain.validation import NANOS_PER_SECOND, parse_uuid

LONGEST_TEXT = 500
MOST_ENTRIES = 100
MOST_OF_AN_ITEM = 10_000
# Nibble has delivered nothing before, and promises nothing so far ahead.
EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)
LATEST = datetime(2100, 1, 1, tzinfo=UTC)

_CURRENCY = re.compile("[A-Z]{3}")

Json = Mapping[str, Any]
T = TypeVar("T")


class Money(NamedTuple):
    """An amount in the smallest unit of a currency, which goes by its code of ISO 4217."""

    currency: str
    minor_units: int


class Item(NamedTuple):
    """Something that was ordered. `quantity` is 0 where none that can be was told; `price` is for all of them."""

    name: str
    quantity: int
    price: Money | None


class Step(NamedTuple):
    """A status that the order came to, in the Order Service's words, and when."""

    status: str
    at: datetime | None


class Payment(NamedTuple):
    """How the order is paid; `method` and `state` in the Order Service's words."""

    method: str
    state: str
    amount: Money | None
    card_last_four: str | None
    iban_last_four: str | None


class Delivery(NamedTuple):
    """Where the order goes."""

    recipient: str
    address_lines: tuple[str, ...]
    instructions: str | None
    estimated_at: datetime | None
    delivered_at: datetime | None


class Order(NamedTuple):
    """An order. None stands for what was not told, or not so that it can be. Times are UTC; `history`: oldest first."""

    id: UUID
    customer_id: UUID | None
    restaurant_id: UUID | None
    driver_id: UUID | None
    status: str
    placed_at: datetime | None
    items: tuple[Item, ...]
    total: Money | None
    history: tuple[Step, ...]
    payment: Payment | None
    delivery: Delivery | None


class Cleaning:
    """Makes what was told of one order usable: each value that can't be becomes none, each text what is left of it."""

    def __init__(self, mask: Mask, currency: str) -> None:
        """`mask` knows the order's payment numbers; `currency` is that of all its amounts."""
        self._mask = mask
        self._currency = currency if _CURRENCY.fullmatch(currency) else None

    def text(self, value: str) -> str:
        """At most `LONGEST_TEXT` characters in one line, without control characters and without payment numbers."""
        # What begins before the cut must be seen whole to be known.
        return self._mask.masked(on_one_line(value)[: LONGEST_TEXT + LONGEST_WRITTEN_NUMBER])[:LONGEST_TEXT]

    def optional_text(self, value: str) -> str | None:
        """The same, or None where nothing is left."""
        return self.text(value) or None

    def id(self, value: str) -> UUID | None:
        """A UUID."""
        return parse_uuid(value)

    def money(self, minor_units: int) -> Money | None:
        """An amount that is not negative."""
        return Money(self._currency, minor_units) if self._currency and minor_units >= 0 else None

    def quantity(self, value: int) -> int:
        """A count that somebody may have ordered, or 0."""
        return value if 0 < value <= MOST_OF_AN_ITEM else 0

    def time(self, seconds: int, nanos: int) -> datetime | None:
        """A moment of this century, from seconds since 1970, to the microsecond."""
        if not (EARLIEST.timestamp() <= seconds < LATEST.timestamp() and 0 <= nanos < NANOS_PER_SECOND):
            return None
        return datetime.fromtimestamp(seconds, UTC) + timedelta(microseconds=nanos // 1000)

    def entries(self, values: Iterable[T]) -> Iterable[T]:
        """The first `MOST_ENTRIES` of them."""
        return islice(values, MOST_ENTRIES)


def oldest_first(steps: Iterable[Step]) -> tuple[Step, ...]:
    """The steps by their times; those without one last, in the order in which they came."""
    return tuple(sorted(steps, key=lambda step: step.at or LATEST))


def to_json(order: Order) -> dict[str, Any]:
    """What `from_json` reads: the order's fields by their names, of JSON's types alone."""
    plain: dict[str, Any] = _plain(order)
    return plain


def _plain(value: object) -> Any:  # noqa: ANN401 - any JSON
    if isinstance(value, tuple):
        fields: Sequence[str] | None = getattr(value, "_fields", None)
        plain = [_plain(it) for it in value]
        return plain if fields is None else dict(zip(fields, plain, strict=True))
    if isinstance(value, UUID):
        return str(value)
    return value.isoformat() if isinstance(value, datetime) else value


def from_json(snapshot: Json) -> Order:
    """The order of which `to_json` made the snapshot."""
    return Order(
        id=UUID(snapshot["id"]),
        customer_id=_uuid(snapshot["customer_id"]),
        restaurant_id=_uuid(snapshot["restaurant_id"]),
        driver_id=_uuid(snapshot["driver_id"]),
        status=snapshot["status"],
        placed_at=_time(snapshot["placed_at"]),
        items=tuple(Item(it["name"], it["quantity"], _money(it["price"])) for it in snapshot["items"]),
        total=_money(snapshot["total"]),
        history=tuple(Step(it["status"], _time(it["at"])) for it in snapshot["history"]),
        payment=_payment(snapshot["payment"]),
        delivery=_delivery(snapshot["delivery"]),
    )


def _payment(json: Json | None) -> Payment | None:
    return None if json is None else Payment(**{**json, "amount": _money(json["amount"])})


def _delivery(json: Json | None) -> Delivery | None:
    if json is None:
        return None
    return Delivery(
        recipient=json["recipient"],
        address_lines=tuple(json["address_lines"]),
        instructions=json["instructions"],
        estimated_at=_time(json["estimated_at"]),
        delivered_at=_time(json["delivered_at"]),
    )


def _money(json: Json | None) -> Money | None:
    return None if json is None else Money(**json)


def _uuid(text: str | None) -> UUID | None:
    return None if text is None else UUID(text)


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
