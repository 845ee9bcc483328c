"""Masked texts: as long as before, changed only where something was found, and with nothing left to be found."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.detection import find
from server.domain.sensitive import Finding, Kind, mask
from tests.unit.sensitive_set import messages

MESSAGES = messages()


@st.composite
def texts_with_findings(draw: st.DrawFn) -> tuple[str, list[Finding]]:
    text = draw(st.text(min_size=1, max_size=60))
    starts = draw(st.lists(st.integers(0, len(text) - 1), unique=True, max_size=4).map(sorted))
    ends = [*starts[1:], len(text)]
    return text, [
        Finding(draw(st.sampled_from(Kind)), start, draw(st.integers(1, end - start)))
        for start, end in zip(starts, ends, strict=False)
    ]


@given(texts_with_findings())
def test_a_masked_text_is_as_long_and_differs_only_in_what_was_found(given_: tuple[str, list[Finding]]) -> None:
    text, findings = given_
    masked = mask(text, findings)
    covered = {at for finding in findings for at in range(finding.start, finding.start + finding.length)}
    assert len(masked) == len(text)
    assert all(masked[at] == text[at] for at in range(len(text)) if at not in covered)
    assert all(masked[at] in {text[at], "*"} for at in covered)


@given(texts_with_findings())
def test_masking_twice_is_masking_once(given_: tuple[str, list[Finding]]) -> None:
    text, findings = given_
    once = mask(text, findings)
    assert mask(once, findings) == once


@pytest.mark.parametrize(
    ("kind", "value", "shown"),
    [
        (Kind.CARD_NUMBER, "4111-1111 1111.1234", "****-**** ****.1234"),
        (Kind.CARD_NUMBER, "٤١١١ ١١١١ ١١١١ ١١١١", "**** **** **** ١١١١"),
        (Kind.CARD_NUMBER, "4111\u200b111111111234", "****\u200b********1234"),
        (Kind.IBAN, "DE89 3704 0044 0532 0130 00", "**** **** **** **** **30 00"),
        (Kind.SECURITY_CODE, "1 2 3", "*****"),
        (Kind.NATIONAL_ID, "85.07.30-033.28", "***************"),
        (Kind.PASSWORD, "hunter 2", "********"),
    ],
)
def test_cards_and_accounts_keep_their_last_four_and_their_groups(kind: Kind, value: str, shown: str) -> None:
    assert mask(f"<{value}>", [Finding(kind, 1, len(value))]) == f"<{shown}>"


def masked(text: str) -> str:
    return mask(text, find(text))


def test_nothing_is_found_in_a_masked_message() -> None:
    assert [message.line for message in MESSAGES if find(masked(message.text))] == []


def parts(finding_in: str, finding: Finding) -> str:
    return finding_in[finding.start : finding.start + finding.length]


@given(
    st.lists(st.sampled_from([message.text for message in MESSAGES]), min_size=2, max_size=5), st.sampled_from(" \n")
)
def test_no_value_that_was_masked_is_found_again_whatever_stands_together(some: list[str], between: str) -> None:
    text = between.join(some)
    again = find(masked(text))
    values = [parts(text, finding) for finding in find(text)]
    assert not [finding for finding in again if "*" in parts(masked(text), finding)]
    assert not [finding for finding in again if parts(masked(text), finding) in values and finding in find(text)]


@given(st.text(max_size=300))
def test_findings_lie_in_the_text_in_order_and_apart(text: str) -> None:
    findings = find(text)
    assert all(finding.start >= 0 and finding.length > 0 for finding in findings)
    ends = [0, *(finding.start + finding.length for finding in findings)]
    assert all(finding.start >= end for finding, end in zip(findings, ends, strict=False))
    assert ends[-1] <= len(text)
