"""Payment numbers in the texts of another service are found however they are written, and little else is."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.domain.payment_numbers import (
    LONGEST_TOLD,
    Mask,
    has_card_number,
    is_iban,
    last_four_of_card,
    last_four_of_iban,
)

CARDS = ["4111111111111111", "5555555555554444", "378282246310005", "6304000000000000", "4222222222222"]
IBANS = ["DE89370400440532013000", "GB82WEST12345698765432", "NO9386011117947", "MT84MALT011000012345MTLCAST001S"]


def luhn_digit(digits: str) -> str:
    """The check digit after these, the way a paper would explain it."""
    doubled = [int(digit) * (2 if place % 2 == 0 else 1) for place, digit in enumerate(reversed(digits))]
    return str(-sum(sum(map(int, str(it))) for it in doubled) % 10)


def card_numbers() -> st.SearchStrategy[str]:
    bodies = st.text("0123456789", min_size=12, max_size=18)
    return bodies.map(lambda digits: digits + luhn_digit(digits))


def ibans() -> st.SearchStrategy[str]:
    accounts = st.text("0123456789", min_size=18, max_size=18)
    return accounts.map(lambda account: f"DE{98 - int(f'{account}131400') % 97:02}{account}")


@pytest.mark.parametrize("number", CARDS)
@pytest.mark.parametrize("form", ["{}", "card {}.", "x{}y", "99{}11", "№{}/12/27", "{}\u200d"])
def test_a_card_number_is_masked_wherever_it_stands(number: str, form: str) -> None:
    masked = Mask().masked(form.format(number))
    assert masked == re.sub(r"\d", "*", form.format(number))


@pytest.mark.parametrize("gap", [" ", "-", ".", " - ", "\u00a0", "_", "/", " \u2013 ", "\u200d", "     "])
def test_a_card_number_may_be_parted_by_up_to_five_signs(gap: str) -> None:
    text = gap.join(["4111", "1111", "1111", "1111"])
    assert Mask().masked(text) == text.replace("4", "*").replace("1", "*")


@pytest.mark.parametrize("zero", ["\uff10", "\u0660", "\u0966", "\u2080", "\U0001d7ce"])
def test_digits_of_any_script_are_digits(zero: str) -> None:
    number = "".join(chr(ord(zero) + int(digit)) for digit in CARDS[0])
    assert Mask().masked(number) == "*" * len(number)


@pytest.mark.parametrize("iban", IBANS)
@pytest.mark.parametrize("form", ["{}", "pay to {} please", "xx{}"])
def test_an_iban_is_masked_with_blanks_and_without(iban: str, form: str) -> None:
    grouped = " ".join(re.findall(".{1,4}", iban))
    for text in (iban, grouped, iban.lower()):
        masked = Mask().masked(form.format(text))
        assert masked == form.format(re.sub(r"\w", "*", text))


@pytest.mark.parametrize(
    "text",
    [
        "Ring twice, third floor. Call +49 170 1234567.",
        "12 Long Street, 10115 Berlin",
        "1111111111111111",
        "2 x 4.50 EUR, order 1000231, at 18:30",
        "at 12 noon, bring 3 bags to the back door",
        "order 0199f3a2-7c1e-7b44-9d2f-00000000000a",
        "",
    ],
)
def test_what_is_no_payment_number_stays(text: str) -> None:
    assert Mask().masked(text) == text


@given(number=card_numbers(), before=st.text(max_size=30), after=st.text(max_size=30))
def test_no_digit_of_a_card_number_is_left_in_any_text(number: str, before: str, after: str) -> None:
    masked = Mask().masked(before + number + after)
    assert masked[len(before) : len(before) + len(number)] == "*" * len(number)
    assert len(masked) == len(before + number + after)


@given(iban=ibans())
def test_every_iban_that_checks_is_one(iban: str) -> None:
    assert is_iban(iban)
    assert Mask().masked(f"IBAN: {iban}, thanks") == f"IBAN: {'*' * 22}, thanks"


@given(number=card_numbers(), cut=st.integers(5, 12))
def test_pieces_of_the_number_that_was_told_are_masked_though_they_do_not_check(number: str, cut: int) -> None:
    mask = Mask(card_number=number)
    halves = mask.masked(f"to {number[:cut]}"), mask.masked(f"{number[cut:]} it is")
    shown = max((len(run) for half in halves for run in re.findall("[0-9]+", half)), default=0)
    assert shown <= 4


def test_pieces_of_the_iban_that_was_told_are_masked() -> None:
    assert Mask(iban="DE89 3704 0044 0532 0130 00").masked("account 0532013000, bank 37040044") == (
        "account **********, bank ********"
    )


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("737 Long Street 1737", "*** Long Street 1737"),
        ("the code is 737", "the code is ***"),
    ],
)
def test_the_security_code_that_was_told_is_masked(text: str, masked: str) -> None:
    assert Mask(security_code="737").masked(text) == masked


@pytest.mark.parametrize("text", ["CVV 123", "cvc2: 1234", "Security code - 999", "cvv123"])
def test_a_security_code_that_is_called_one_is_masked(text: str) -> None:
    assert not re.search(r"\d{3}", Mask().masked(text))


@given(st.text("0123456789", min_size=13, max_size=19))
def test_the_check_digit_decides(digits: str) -> None:
    windows = [
        digits[start:end] for start in range(len(digits)) for end in range(start + 13, min(start + 19, len(digits)) + 1)
    ]
    assert has_card_number(digits) == any(luhn_digit(window[:-1]) == window[-1] for window in windows)


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        ("4111 1111 1111 1234", "1234"),
        ("************1234", "1234"),
        ("1234", "1234"),
        ("visa \u0661\u0662\u0663\u0664", "1234"),
        ("123", None),
        ("", None),
        ("4" * 20, None),
        (" " * LONGEST_TOLD + "1234", None),
    ],
)
def test_of_a_card_the_last_four_digits_are_kept(number: str, shown: str | None) -> None:
    assert last_four_of_card(number) == shown


@pytest.mark.parametrize(
    ("iban", "shown"),
    [
        ("DE89 3704 0044 0532 0130 00", "3000"),
        ("de** 3000", "3000"),
        ("MT84MALT011000012345MTLCAST001S", "001S"),
        ("unknown", None),
        ("", None),
        ("DE" + "1" * 60, None),
    ],
)
def test_of_an_iban_the_last_four_signs_are_kept(iban: str, shown: str | None) -> None:
    assert last_four_of_iban(iban) == shown
