"""What an e-mail says, and that nothing that others wrote makes it say more."""

import email
from base64 import b64encode
from datetime import timedelta
from email.message import EmailMessage
from email.policy import default
from uuid import UUID, uuid4

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from server.notification.emails import MOST_LISTED, Composer, Letter, Told, Unaddressable, address_of
from server.notification.words import Priority, Status, Type
from tests.unit.vocabulary import NOW

TICKET, OTHER = UUID(int=1), UUID(int=2)
EMAIL = UUID("01990000-0000-7000-8000-0000000000aa")
COMPOSER = Composer("Nibble Support <support@nibble.example>", "https://support.nibble.example/tickets/{ticket_id}")


def told(type_: Type = Type.TICKET_COMMENTED, **fields: object) -> Told:
    """A notification, with defaults."""
    usual = Told(type_, TICKET, "Cold soup", Priority.MEDIUM, Status.IN_PROGRESS, NOW)
    return usual._replace(**fields)  # type: ignore[arg-type]


def mail(*news: Told, name: str | None = "Kim", address: str = "kim@people.example", more: int = 0) -> EmailMessage:
    """The mail as it arrives: written out and read again."""
    letter = Letter(EMAIL, address, name, news or [told()], len(news or [0]) + more)
    arrived = email.message_from_bytes(COMPOSER.compose(letter, NOW).as_bytes(), policy=default)
    assert isinstance(arrived, EmailMessage)
    return arrived


def part(message: EmailMessage, kind: str) -> str:
    """The text or the HTML of a mail."""
    body = message.get_body((kind,))
    assert body is not None
    content: str = body.get_content()
    return content


@pytest.mark.parametrize(
    ("news", "subject"),
    [
        (told(Type.TICKET_CREATED), "New ticket: Cold soup"),
        (told(Type.TICKET_CREATED, priority=Priority.URGENT), "New urgent ticket: Cold soup"),
        (told(Type.TICKET_ASSIGNED), "We are working on your ticket: Cold soup"),
        (told(Type.TICKET_COMMENTED, priority=Priority.URGENT), "New comment: Cold soup"),
        (told(Type.TICKET_STATUS_CHANGED), "Your ticket is in progress: Cold soup"),
        (told(Type.TICKET_STATUS_CHANGED, status=Status.OPEN), "Your ticket is open again: Cold soup"),
        (told(Type.TICKET_RESOLVED, status=Status.RESOLVED), "Your ticket is resolved: Cold soup"),
        (told(Type.TICKET_CLOSED, status=Status.CLOSED), "Your ticket is closed: Cold soup"),
    ],
)
def test_the_subject_says_what_happened_to_which_ticket(news: Told, subject: str) -> None:
    assert mail(news)["Subject"] == subject


def test_a_mail_has_the_headers_that_machines_look_at() -> None:
    message = mail()
    assert message["Message-ID"] == f"<{EMAIL}@nibble.example>"
    assert message["From"] == "Nibble Support <support@nibble.example>"
    assert message["To"] == "Kim <kim@people.example>"
    assert message["Date"].datetime == NOW.replace(microsecond=0)
    assert message["Auto-Submitted"] == "auto-generated"
    assert message["List-Id"] == "Nibble support <support-notifications.nibble.example>"
    assert message.get_content_type() == "multipart/alternative"
    assert [each.get_content_type() for each in message.iter_parts()] == ["text/plain", "text/html"]
    assert {each.get_content_charset() for each in message.iter_parts()} == {"utf-8"}


def test_composed_again_it_has_the_same_message_id() -> None:
    letter = Letter(EMAIL, "kim@people.example", None, [told()], 1)
    assert len({COMPOSER.compose(letter, NOW + timedelta(hours=n))["Message-ID"] for n in range(3)}) == 1


def test_both_parts_name_the_ticket_the_news_and_the_link() -> None:
    message = mail(told(subject="Süppe 🍜"))
    for kind in ("plain", "html"):
        words = part(message, kind)
        for expected in ("Süppe 🍜", "There is a new comment.", f"https://support.nibble.example/tickets/{TICKET}"):
            assert expected in words


def test_a_digest_lists_its_news_by_ticket_in_order() -> None:
    message = mail(
        told(Type.TICKET_CREATED),
        told(Type.TICKET_CREATED, ticket_id=OTHER, subject="No spoon"),
        told(Type.TICKET_COMMENTED),
    )
    assert message["Subject"] == "3 support updates on 2 tickets"
    text = part(message, "plain")
    places = [text.index(words) for words in ("Cold soup", "opened", "comment", str(TICKET), "No spoon", str(OTHER))]
    assert places == sorted(places)
    assert text.count("Cold soup") == 1


def test_a_digest_of_more_than_can_be_listed_says_how_many_more() -> None:
    message = mail(*[told(ticket_id=uuid4()) for _ in range(MOST_LISTED)], more=23)
    assert message["Subject"] == f"{MOST_LISTED + 23} support updates"
    assert "And 23 more." in part(message, "plain")
    assert "And 23 more." in part(message, "html")


def test_html_shows_what_was_written_as_it_was_written() -> None:
    html = part(mail(told(subject="<img src=x onerror=alert(1)> & co"), name="<b>Kim</b>"), "html")
    assert "&lt;img src=x onerror=alert(1)&gt; &amp; co" in html
    assert "<img" not in html
    assert "<b>Kim" not in html


texts = st.text(max_size=300) | st.text(st.sampled_from('\r\n\t \x00\x85\u2028\u202eab:@<>",\\=?é'), max_size=60)


def encoded_word(charset: str, encoding: str, data: bytes) -> str:
    """RFC 2047's way to write a word, which Python decodes wherever it stands in a header."""
    quoted = "".join(f"={byte:02X}" for byte in data)
    return f"=?{charset}?{encoding}?{b64encode(data).decode() if encoding == 'b' else quoted}?="


charsets, line_breaks = (
    st.sampled_from(["utf-8", "us-ascii*en", "utf-16", "x"]),
    st.sampled_from([b"\r\nBcc: e@x.example"]),
)
encoded_words = st.builds(encoded_word, charsets, st.sampled_from("qb"), line_breaks | st.binary(max_size=20))
texts = texts | st.lists(encoded_words | st.text(max_size=3), min_size=1, max_size=4).map("".join)


@given(subject=texts.filter(str.strip), name=texts)
@example(subject=encoded_word("utf-8", "q", b"x\r\nBcc: e@x.example\r\n\r\nPay here"), name="Kim")
@example(subject="Cold soup", name="0" * 69 + "=?=?)")
@example(subject="Cold soup", name="0" * 69 + '=?=?".,;:@<>[]')
@example(subject="Cold soup", name=encoded_word("utf-8", "b", b"\r\nBcc: e@x.example\r\n\r\nPay here"))
def test_no_words_of_others_become_a_header(subject: str, name: str) -> None:
    message = mail(told(subject=subject), name=name)
    assert sorted(message.keys()) == sorted(
        ["From", "To", "Subject", "Date", "Message-ID", "List-Id", "Auto-Submitted", "MIME-Version", "Content-Type"]
    )
    assert [each.addr_spec for each in message["To"].addresses] == ["kim@people.example"]
    assert len(message["Subject"]) < 200
    assert not {*"\r\n\t\x00\x85\u2028\u202e"} & {*message["Subject"], *message["To"].addresses[0].display_name}
    assert str(TICKET) in part(message, "plain")


@pytest.mark.parametrize(
    "address",
    ["", "kim", "kim@", "@people.example", "kim people@x.example", "kim@x.example\r\nBcc: e@x.example", "kïm@x.example",
     "<kim@x.example>", "kim@x.example, eve@x.example", "kim@x.example\n", "=?utf-8?q?k=0D=0ABcc:_e?=@x.example"],
)  # fmt: skip
def test_what_is_no_address_gets_no_mail(address: str) -> None:
    with pytest.raises(Unaddressable):
        mail(address=address)


@pytest.mark.parametrize("text", ["support@nibble.example", "<support@nibble.example>", '"A, B" <a@b.example>'])
def test_a_sender_is_an_address_with_or_without_a_name(text: str) -> None:
    assert address_of(text).addr_spec in text


@pytest.mark.parametrize("text", ["", "Nibble", "Nibble <support>", "a@b.example, c@d.example", "a@b.example\nX: y"])
def test_a_sender_that_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not an address"):
        address_of(text)
