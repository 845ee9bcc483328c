"""What a field may hold, held against sections 3, 4 and 5 of the contract."""

import re
import unicodedata
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from server.domain.tickets import Priority, Status
from server.domain.validation import MAX_SUBJECT, MAX_TEXT, Fields, clean_text
from server.errors import InvalidFields

CONTROLS = [chr(point) for point in [*range(0x20), 0x7F, *range(0x80, 0xA0)] if chr(point) not in "\n\t\r"]
# White space by Unicode, zero-width characters, and letters that print nothing.
BLANKS = "\u0020\u00a0\u1680\u2000\u2009\u2028\u2029\u202f\u205f\u3000\u200b\u200d\u2060\ufeff\u2800\u3164\u00ad"
texts = st.text(st.characters(codec="utf-8"), max_size=80)


def refused(fields: Fields) -> list[str]:
    """The names of the bad fields, in the order in which they were read."""
    try:
        fields.check()
    except InvalidFields as error:
        return [violation.field for violation in error.violations]
    return []


def read_text(value: str, longest: int = MAX_TEXT) -> str | None:
    """The text as it is stored, None where it is refused."""
    fields = Fields()
    text = fields.text("comment", value, longest)
    return None if refused(fields) else text


def test_the_limits_are_those_of_the_contract() -> None:
    assert (MAX_SUBJECT, MAX_TEXT) == (200, 10_000)


@pytest.mark.parametrize(
    ("sent", "stored"),
    [
        ("  soup  ", "soup"),
        ("\n\tsoup\n", "soup"),
        ("\u3000soup\u00a0", "soup"),
        ("one\r\ntwo\rthree\nfour", "one\ntwo\nthree\nfour"),
        ("one\r\r\ntwo", "one\n\ntwo"),
        ("\r\nsoup\r\n", "soup"),
        ("a\tb", "a\tb"),
        ("👩‍🍳 🍜", "👩‍🍳 🍜"),
    ],
)
def test_a_text_is_stored_trimmed_and_with_newlines(sent: str, stored: str) -> None:
    assert read_text(sent) == stored


@pytest.mark.parametrize("value", ["", " ", "\n\r\n\t", *BLANKS, BLANKS])
def test_a_text_in_which_a_reader_sees_nothing_is_refused(value: str) -> None:
    assert read_text(value) is None


@pytest.mark.parametrize("control", CONTROLS, ids=[f"U+{ord(char):04X}" for char in CONTROLS])
def test_a_control_character_is_refused_wherever_it_stands(control: str) -> None:
    assert [read_text(text) for text in (f"so{control}up", f"{control}soup", f"soup{control}")] == [None] * 3


@pytest.mark.parametrize("letter", ["a", "ß", "漢", "🍜"])
@pytest.mark.parametrize("longest", [MAX_SUBJECT, MAX_TEXT])
def test_the_limit_counts_code_points(letter: str, longest: int) -> None:
    assert read_text(letter, longest) == letter
    assert read_text(letter * longest, longest) == letter * longest
    assert read_text(letter * (longest + 1), longest) is None


def test_the_limit_counts_after_trimming() -> None:
    assert read_text(" " * 50 + "a" * 200 + "\r\n", 200) == "a" * 200


def test_the_limit_counts_a_crlf_once() -> None:
    assert read_text("a\r\nb", 3) == "a\nb"


def test_a_combining_mark_is_a_code_point_of_its_own() -> None:
    assert read_text("e\u0301", 1) is None


@given(texts)
@example("\x1fsoup")
@example("\u0085")
def test_whatever_is_stored_keeps_every_rule(value: str) -> None:
    stored = read_text(value, 60)
    if stored is not None:
        assert 1 <= len(stored) <= 60
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", stored)
        assert stored == stored.strip()
        assert any(unicodedata.category(char) not in {"Zs", "Zl", "Zp", "Cf", "Cc"} for char in stored)


@given(texts)
def test_what_was_stored_once_would_be_stored_the_same_again(value: str) -> None:
    assert clean_text(clean_text(value)) == clean_text(value)
    stored = read_text(value)
    assert stored is None or read_text(stored) == stored


@given(st.uuids(), st.sampled_from([str.lower, str.upper, str.title]))
def test_a_uuid_is_read_with_hyphens_in_either_case(value: UUID, form: object) -> None:
    assert callable(form)
    fields = Fields()
    assert fields.uuid("ticket_id", form(str(value))) == value
    assert refused(fields) == []


@pytest.mark.parametrize(
    "value",
    [
        "",
        "0192f0c1",
        "0192f0c123457abc8def0123456789ab",
        "{0192f0c1-2345-7abc-8def-0123456789ab}",
        "urn:uuid:0192f0c1-2345-7abc-8def-0123456789ab",
        "0192f0c1-2345-7abc-8def-0123456789ag",
        "0192f0c1-2345-7abc-8def-0123456789ab ",
        " 0192f0c1-2345-7abc-8def-0123456789ab",
        "0192f0c1-2345-7abc-8def-0123456789ab\n",
        "0192f0c12-345-7abc-8def-0123456789ab",
        "\u0660192f0c1-2345-7abc-8def-0123456789a",
        "null",
    ],
)
def test_anything_else_is_no_uuid(value: str) -> None:
    fields = Fields()
    fields.uuid("order_id", value)
    assert refused(fields) == ["order_id"]


@pytest.mark.parametrize("kind", [Status, Priority])
def test_every_word_of_a_choice_is_read_as_itself(kind: type[Status] | type[Priority]) -> None:
    fields = Fields()
    for word in kind:
        assert fields.choice("field", str(word), kind) is word
    assert refused(fields) == []


@pytest.mark.parametrize("value", [None, "", "OPEN", "unknown", "status_unspecified", " open"])
def test_another_word_is_refused_with_the_allowed_ones(value: str | None) -> None:
    fields = Fields()
    fields.choice("status", value, Status)
    with pytest.raises(InvalidFields, match="open, in_progress, resolved, closed"):
        fields.check()


def test_no_choices_mean_all_of_them() -> None:
    assert Fields().choices("status", [], Status) == set(Status)


def test_choices_may_repeat() -> None:
    assert Fields().choices("status", ["open", "closed", "open"], Status) == {Status.OPEN, Status.CLOSED}


@pytest.mark.parametrize(
    ("sent", "rows"), [(0, 20), (1, 1), (20, 20), (99, 99), (100, 100), (101, 100), (2**31 - 1, 100)]
)
def test_the_page_size_has_a_default_and_a_clamp(sent: int, rows: int) -> None:
    fields = Fields()
    assert fields.page_size(sent) == rows
    assert refused(fields) == []


@pytest.mark.parametrize("size", [-1, -(2**31)])
def test_a_negative_page_size_is_refused(size: int) -> None:
    fields = Fields()
    fields.page_size(size)
    assert refused(fields) == ["page_size"]


@pytest.mark.parametrize("version", [None, 1, 2**31 - 1])
def test_an_expected_version_is_none_or_counts_from_one(version: int | None) -> None:
    fields = Fields()
    assert fields.expected_version(version) == version
    assert refused(fields) == []


@pytest.mark.parametrize("version", [0, -1])
def test_a_version_that_no_ticket_can_have_is_refused(version: int) -> None:
    fields = Fields()
    fields.expected_version(version)
    assert refused(fields) == ["expected_version"]


@pytest.mark.parametrize("key", ["k", "~", "!", "a" * 255, "0192f0c1-2345-7abc-8def-0123456789ab"])
def test_a_key_is_1_to_255_visible_ascii_characters(key: str) -> None:
    fields = Fields()
    assert fields.idempotency_key(key) == key
    assert refused(fields) == []


@pytest.mark.parametrize("key", ["", " ", "a b", "a" * 256, "schlüssel", "a\x7f", "a\n", "a\t", b"bytes"])
def test_any_other_key_is_refused(key: str | bytes) -> None:
    fields = Fields()
    fields.idempotency_key(key)
    assert refused(fields) == ["idempotency-key"]


def test_no_key_is_no_violation() -> None:
    fields = Fields()
    assert fields.idempotency_key(None) is None
    assert refused(fields) == []


@given(st.datetimes(timezones=st.just(UTC)))
def test_a_time_is_read_to_the_microsecond(moment: datetime) -> None:
    seconds, rest = divmod(moment - datetime(1970, 1, 1, tzinfo=UTC), timedelta(seconds=1))
    nanos = rest // timedelta(microseconds=1) * 1000
    assert Fields().time("created_after", seconds, nanos) == moment


@pytest.mark.parametrize("nanos", [999_999_000, 999_999_001, 999_999_999])
def test_the_end_of_time_is_a_time_however_many_nines_it_has(nanos: int) -> None:
    fields = Fields()
    assert fields.time("created_before", 253_402_300_799, nanos) == datetime.max.replace(tzinfo=UTC)
    assert refused(fields) == []


@pytest.mark.parametrize("nanos", [-1, 1_000_000_000])
def test_a_fraction_that_is_none_is_refused(nanos: int) -> None:
    fields = Fields()
    assert fields.time("created_before", 0, nanos) is None
    assert refused(fields) == ["created_before"]


@pytest.mark.parametrize("seconds", [-62_135_596_801, 253_402_300_800, 2**63 - 1, -(2**63)])
def test_a_time_outside_the_years_1_to_9999_is_refused(seconds: int) -> None:
    fields = Fields()
    fields.time("created_before", seconds, 0)
    assert refused(fields) == ["created_before"]


def test_all_bad_fields_are_named_at_once_and_in_the_message_too() -> None:
    fields = Fields()
    fields.text("subject", " ", MAX_SUBJECT)
    fields.text("description", "a\0b", MAX_TEXT)
    fields.uuid("order_id", "x")
    fields.choice("priority", "top", Priority)
    fields.text("fine", "fine", MAX_TEXT)
    fields.idempotency_key("")
    with pytest.raises(InvalidFields) as refusal:
        fields.check()
    named = [violation.field for violation in refusal.value.violations]
    assert named == ["subject", "description", "order_id", "priority", "idempotency-key"]
    assert all(name in refusal.value.message for name in named)


def test_nothing_bad_passes_the_check() -> None:
    Fields().check()
