"""What is believed of an order that the Order Service told, and that nothing of it can be used to pay."""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st
from nibble.order.v1 import order_pb2

from devstack.order_service import CARD, CVV, IBAN, InsecureDevelopmentOrderService, usual_order
from server.clients.callee import UnusableAnswer
from server.clients.order_service import LARGEST_ANSWER, read_order
from server.domain.orders import (
    LONGEST_TEXT,
    MOST_ENTRIES,
    Delivery,
    Item,
    Money,
    Order,
    Payment,
    Step,
    from_json,
    to_json,
)
from tests.unit.test_payment_numbers import card_numbers, ibans

ORDER_ID = UUID("01920000-0000-7000-8000-0000000012ab")
EVENING = datetime(2026, 3, 4, 18, 0, tzinfo=UTC)


def told(**fields: object) -> order_pb2.Order:
    """The stand-in's order, with some fields as given."""
    order = usual_order(str(ORDER_ID))
    order.MergeFrom(order_pb2.Order(**fields))  # type: ignore[arg-type]
    return order


def read(order: order_pb2.Order) -> Order:
    return read_order(ORDER_ID, order)


def malicious(how: str) -> Order:
    stand_in = InsecureDevelopmentOrderService.__new__(InsecureDevelopmentOrderService)
    request = InsecureDevelopmentOrderService.request_type(order_id=str(ORDER_ID))
    return read(order_pb2.Order.FromString(stand_in.malice(request, {"how": how})))


def test_an_order_is_read_field_by_field_and_of_its_payment_four_digits_are_kept() -> None:
    assert read(told()) == Order(
        id=ORDER_ID,
        customer_id=UUID("01920000-0000-7000-8000-0000000012ab"),
        restaurant_id=UUID("01920000-0000-7000-9000-0000000012ab"),
        driver_id=UUID("01920000-0000-7000-a000-0000000012ab"),
        status="delivered",
        placed_at=EVENING,
        items=(Item("Margherita", 2, Money("EUR", 1980)), Item("Lemonade 0.5 l", 1, Money("EUR", 350))),
        total=Money("EUR", 2580),
        history=(
            Step("placed", EVENING),
            Step("accepted", EVENING + timedelta(minutes=2)),
            Step("delivered", EVENING + timedelta(minutes=40)),
        ),
        payment=Payment("card", "captured", Money("EUR", 2580), "1111", "3000"),
        delivery=Delivery(
            recipient="Ann Lee",
            address_lines=("Long Street 12", "10115 Berlin"),
            instructions="Ring twice, third floor.",
            estimated_at=EVENING + timedelta(minutes=35),
            delivered_at=EVENING + timedelta(minutes=40),
        ),
    )


def test_of_an_order_that_tells_only_its_id_nothing_else_is_known() -> None:
    order = read(order_pb2.Order(id=str(ORDER_ID)))
    assert order == Order(ORDER_ID, None, None, None, "", None, (), None, (), None, None)


@pytest.mark.parametrize("order_id", ["0192f0c1-2345-7abc-8def-0123456789ab", "", CARD])
def test_another_order_than_the_one_asked_for_is_no_answer(order_id: str) -> None:
    with pytest.raises(UnusableAnswer):
        read(usual_order(order_id))


@pytest.mark.parametrize("order", [told(), malicious("texts"), malicious("numbers"), order_pb2.Order(id=str(ORDER_ID))])
def test_a_snapshot_gives_the_order_back(order: order_pb2.Order | Order) -> None:
    order = order if isinstance(order, Order) else read(order)
    assert from_json(json.loads(json.dumps(to_json(order)))) == order


def test_malicious_texts_are_cut_and_hold_neither_numbers_that_pay_nor_control_characters() -> None:
    order = malicious("texts")
    assert (order.customer_id, order.total, order.payment and order.payment.card_last_four) == (None, None, None)
    assert order.delivery is not None
    assert {len(text) for text in texts(order)} == {LONGEST_TEXT}
    assert not re.search(r"[\x00-\x1f\u202e]|\d\d", "".join(texts(order)))


def test_amounts_counts_and_times_that_can_not_be_are_not_told() -> None:
    order = malicious("numbers")
    assert (order.total, order.placed_at, order.payment and order.payment.amount) == (None, None, None)
    assert [item.quantity for item in order.items] == [0, 0]
    assert order.history[-1] == Step("placed", None)
    assert order.delivery is not None
    assert (order.delivery.estimated_at, order.delivery.delivered_at) == (None, None)


@pytest.mark.parametrize("currency", ["", "eur", "EURO", "\u0395UR", "E R"])
def test_an_amount_in_no_currency_is_none(currency: str) -> None:
    order = told()
    order.currency = currency
    assert read(order).total is None


@pytest.mark.parametrize(
    ("seconds", "nanos", "moment"),
    [
        (0, 0, None),
        (946_684_799, 0, None),
        (946_684_800, 0, datetime(2000, 1, 1, tzinfo=UTC)),
        (4_102_444_799, 999_999_999, datetime(2099, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)),
        (4_102_444_800, 0, None),
        (1_700_000_000, 1_000_000_000, None),
        (1_700_000_000, -1, None),
    ],
)
def test_a_time_is_one_of_this_century(seconds: int, nanos: int, moment: datetime | None) -> None:
    order = told()
    order.placed_at.CopyFrom(Timestamp(seconds=seconds, nanos=nanos))
    assert read(order).placed_at == moment


def test_history_is_put_in_order_and_what_has_no_time_comes_last() -> None:
    order = told()
    del order.status_history[:]
    for status, second in (("b", 1_700_000_002), ("none", 0), ("a", 1_700_000_001), ("none either", 0)):
        order.status_history.add(status=status, at=Timestamp(seconds=second))
    assert [step.status for step in read(order).history] == ["a", "b", "none", "none either"]


def test_lists_are_cut() -> None:
    order = told()
    for _ in range(3 * MOST_ENTRIES):
        order.items.add(name="x")
        order.status_history.add(status="x")
        order.delivery.address_lines.append("x")
    found = read(order)
    assert found.delivery is not None
    assert {len(it) for it in (found.items, found.history, found.delivery.address_lines)} == {MOST_ENTRIES}


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("  Ring\r\n\ttwice ", "Ring twice"),
        ("a\x1b[2Jb\x00c", "a[2Jbc"),
        ("\u202eevil\u2066", "evil"),
        ("z\u200bw\ufeff", "zw"),
        ("نیما\u200cنیا", "نیما\u200cنیا"),
        ("👩\u200d🍳", "👩\u200d🍳"),
        ("x" * (LONGEST_TEXT + 1), "x" * LONGEST_TEXT),
        ("\x00 \n", None),
        ("", None),
    ],
)
def test_a_text_is_one_line_that_can_be_shown(text: str, kept: str | None) -> None:
    delivery = read(told(delivery=order_pb2.Order.Delivery(instructions=text))).delivery
    assert delivery is not None
    assert delivery.instructions == kept


@pytest.mark.parametrize("spare", range(0, 20, 3))
def test_a_card_number_across_the_cut_is_masked_before_it_is_cut(spare: int) -> None:
    order = told(status="x" * (LONGEST_TEXT - spare) + CARD + "9" * 40)
    assert not re.search(r"\d", read(order).status)


NUMBERS = st.one_of(card_numbers(), ibans())
WRITTEN = st.sampled_from(
    ["{}", "card {}!", "99{}00", "a{}b", "{}/12/27/737", "\x00{}", "\u200b {} \u202e", "x" * 490 + "{}"]
)
TEXT_FIELDS = (
    "id_of_driver", "id_of_customer", "status", "currency", "item", "step", "method", "state", "card_number", "iban",
    "cvv", "recipient", "address", "instructions",
)  # fmt: skip


def put(order: order_pb2.Order, field: str, text: str) -> None:
    """Writes the text into one of the fields."""
    match field:
        case "id_of_driver":
            order.driver_id = text
        case "id_of_customer":
            order.customer_id = text
        case "status" | "currency":
            setattr(order, field, text)
        case "item":
            order.items.add(name=text, quantity=1)
        case "step":
            order.status_history.add(status=text)
        case "recipient":
            order.delivery.recipient_name = text
        case "address":
            order.delivery.address_lines.append(text)
        case "instructions":
            order.delivery.instructions = text
        case _:
            setattr(order.payment, field, text)


def parted(number: str, gap: str) -> str:
    return gap.join(re.findall(".{1,4}", number))


@given(
    number=NUMBERS,
    gap=st.sampled_from(["", " ", "-", " - ", "\u00a0", "\u200b", "."]),
    form=WRITTEN,
    fields=st.sets(st.sampled_from(TEXT_FIELDS), min_size=1),
)
def test_no_more_than_four_digits_of_a_number_that_pays_survive_in_whichever_field_they_came(
    number: str, gap: str, form: str, fields: set[str]
) -> None:
    order = order_pb2.Order(id=str(ORDER_ID))
    for field in fields:
        put(order, field, form.format(parted(number, gap)))
    assert longest_run(number, read(order)) <= 4


@given(
    number=card_numbers(),
    cut=st.integers(1, 12),
    told_as=st.sampled_from(["{}", "nr {}", "0{}"]),
    fields=st.tuples(*[st.sampled_from(["status", "item", "recipient", "address", "instructions"])] * 2),
)
def test_a_number_that_comes_in_two_halves_is_found_where_the_payment_tells_it(
    number: str, cut: int, told_as: str, fields: tuple[str, str]
) -> None:
    order = order_pb2.Order(id=str(ORDER_ID))
    order.payment.card_number = told_as.format(number)
    for field, half in zip(fields, (number[:cut], number[cut:]), strict=True):
        put(order, field, f"half {half} of it")
    assert longest_run(number, read(order)) <= 4


def texts(value: object) -> Iterator[str]:
    """Every text of an order; its ids and times are none."""
    if isinstance(value, tuple):
        for it in value:
            yield from texts(it)
    elif isinstance(value, str):
        yield value


def longest_run(number: str, order: Order) -> int:
    """How many digits of the number stand in a row in some text, whatever stands between them."""
    shown = [re.sub(r"[\W_]", "", text) for text in texts(order)]
    digits = re.findall("[0-9]+", number)
    pieces = (run[start:end] for run in digits for start in range(len(run)) for end in range(start + 1, len(run) + 1))
    return max((len(piece) for piece in pieces if any(piece in text for text in shown)), default=0)


def test_the_largest_answer_is_cut_to_what_is_of_use() -> None:
    stand_in = InsecureDevelopmentOrderService.__new__(InsecureDevelopmentOrderService)
    request = InsecureDevelopmentOrderService.request_type(order_id=str(ORDER_ID))
    answer = stand_in.malice(request, {"bytes": LARGEST_ANSWER})
    assert LARGEST_ANSWER * 0.98 < len(answer) <= LARGEST_ANSWER
    assert len(read(order_pb2.Order.FromString(answer)).items) == MOST_ENTRIES


def test_what_the_stand_in_tells_in_full_is_nowhere_in_the_snapshot() -> None:
    snapshot = json.dumps(to_json(read(told())))
    assert not any(secret in snapshot for secret in (CARD, CARD.replace(" ", ""), IBAN, CVV))
