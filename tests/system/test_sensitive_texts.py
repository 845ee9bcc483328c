"""What is sensitive in a text is read nowhere but by supervisors who ask for it, and that they did is on record."""

import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from itertools import product
from typing import Any

import psycopg
import pytest
from stdnum import luhn

from tests.integration.traces import traces
from tests.system.doors import OK, Caller, Door
from tests.system.stage import Stage
from tests.system.vocabulary import (
    as_agent,
    as_customer,
    as_supervisor,
    assign,
    comment,
    dice,
    eventually,
    move,
    new_id,
    open_ticket,
    rate,
)

ORIGINALS = "admin_service.concealed_texts.text"
ALL_SERVICES = 20.0
"""Seconds within which an event has passed through Kafka, and whatever follows from it is done."""
INTERNAL = 13
TEXTS = ("subject", "description", "comment", "note", "resolution_notes", "remark")


def a_card(chance: random.Random) -> str:
    """A number that was never there before, as one that has not been masked must be told from others."""
    number = f"4{chance.randrange(10**14):014}"
    return number + luhn.calc_check_digit(number)


def masked(card: str) -> str:
    return "*" * 12 + card[-4:]


def finding(field: str, before: str) -> dict[str, Any]:
    """A card after these words."""
    return {"field": field, "kind": "card_number", "start": len(before), "length": 16}


@pytest.fixture(scope="module")
def cards() -> dict[str, str]:
    """One for each text."""
    chance = dice("cards")
    return {name: a_card(chance) for name in TEXTS}


class Life:
    """A ticket in each text of which a card's number stands, from its creation to its rating."""

    def __init__(self, stage: Stage, cards: dict[str, str]) -> None:
        rest, texts = stage.rest, {name: f"{name}: {card}" for name, card in cards.items()}
        self.owner, self.agent = as_customer(), as_agent()
        rest.call("ListNotifications", self.agent)  # by which the agent is known as staff
        opened = {name: texts[name] for name in ("subject", "description")}
        self.created = open_ticket(rest, self.owner, **opened, order_id=new_id(), key=new_id())
        assign(rest, self.agent, self.created)
        self.comment = comment(rest, self.agent, self.created, comment=texts["comment"], key=new_id())
        self.note = comment(rest, self.agent, self.created, comment=texts["note"], is_internal=True)
        self.resolved = move(rest, self.agent, self.created, "resolved", resolution_notes=texts["resolution_notes"])
        self.feedback = rate(rest, self.owner, self.created, rating=2, remark=texts["remark"])

    @property
    def id(self) -> str:
        return str(self.created["id"])


@pytest.fixture(scope="module")
def life(stage: Stage, cards: dict[str, str]) -> Life:
    return Life(stage, cards)


def mails_about(stage: Stage, ticket_id: str) -> list[bytes]:
    """Every mail with a link to the ticket, as it was sent and as it reads."""
    found = [mail for mail in stage.stack.mails.all() if ticket_id in mail.text]
    return [f"{mail.message}\n{mail.subject}\n{mail.text}\n{mail.html}".encode() for mail in found]


def everything_read(door: Door, life: Life, caller: Caller) -> str:
    """The answers to every call by which the caller could come across a text of the ticket."""
    of_ticket = ["GetTicket", "ListComments", "ListTicketHistory", "GetTicketFeedback"]
    answers = [door.call(call, caller, ticket_id=life.id) for call in of_ticket]
    if caller.role == "customer":
        answers += [door.call("ListMyTickets", caller), door.call("ListNotifications", caller)]
    else:
        answers.append(door.call("ListTickets", caller, user_id=life.owner.id))
    if caller == life.agent:
        answers += [door.call("ListAssignedTickets", caller), door.call("ListNotifications", caller)]
    if caller.role == "support_supervisor":
        answers.append(door.call("ExportPersonalData", caller, user_id=life.owner.id))
    assert {answer.code for answer in answers} == {OK}
    return json.dumps([answer.payload for answer in answers])


def test_nobody_reads_a_secret_at_any_door_in_any_list(stage: Stage, life: Life, cards: dict[str, str]) -> None:
    for door, caller in product(stage.doors, (life.owner, life.agent, as_supervisor())):
        read = everything_read(door, life, caller)
        assert [card for card in cards.values() if card in read] == [], (door.name, caller.role)
        assert masked(cards["description"]) in read


def test_findings_have_the_same_json_at_every_door_and_stand_where_the_stars_are(stage: Stage, life: Life) -> None:
    for door in stage.doors:
        ticket = door.call("GetTicket", life.owner, ticket_id=life.id).resource
        assert ticket["sensitive_findings"] == [
            finding("subject", "subject: "),
            finding("description", "description: "),
            finding("resolution_notes", "resolution_notes: "),
        ]
        comments = door.call("ListComments", life.agent, ticket_id=life.id).resource["comments"]
        assert [it["sensitive_findings"] for it in comments] == [
            [finding("comment", "note: ")],
            [finding("comment", "comment: ")],
        ]
        feedback = door.call("GetTicketFeedback", life.owner, ticket_id=life.id).resource
        assert feedback["sensitive_findings"] == [finding("remark", "remark: ")]
        for it in ticket["sensitive_findings"]:
            assert ticket[it["field"]][it["start"] : it["start"] + 12] == "*" * 12


@pytest.mark.timeout(400)  # it reads all that the stage has, which is what the tests before have left there
def test_a_secret_is_in_no_event_no_mail_no_inbox_no_log_and_in_one_column_of_the_database(
    stage: Stage, life: Life, cards: dict[str, str]
) -> None:
    public = [it for it in history_of(stage, as_agent(), life.id) if not it["is_internal"]]
    stage.topic.records_of(life.id, len(public))
    mails = eventually(lambda: mails_about(stage, life.id), ALL_SERVICES)
    told = eventually(lambda: stage.rest.call("ListNotifications", life.owner).resource["notifications"], ALL_SERVICES)
    assert {it["subject"] for it in told} == {life.created["subject"]}
    secrets = {card.encode() for card in cards.values()}
    assert masked(cards["subject"]).encode() in b"".join(mails)
    topic = [record.key + record.value + repr(record.headers).encode() for record in stage.topic.records()]
    logs = [log.read_bytes() for log in stage.stack.logs.iterdir()]
    for place in (*topic, *mails_about(stage, life.id), *logs):
        assert not [secret for secret in secrets if secret in place]
    kept = {card: {ORIGINALS} for name, card in cards.items() if name != "remark"}
    assert traces(stage.stack.dsn, *cards.values()) == kept


@contextmanager
def originals_that_are_refused(stage: Stage, text: str) -> Iterator[None]:
    """A table with a rule that the service does not know."""
    table, rule = "admin_service.concealed_texts", "no_such_original"
    with psycopg.connect(stage.stack.dsn, autocommit=True) as connection:
        connection.execute(f"ALTER TABLE {table} ADD CONSTRAINT {rule} CHECK (strpos(text, '{text}') = 0) NOT VALID")
        try:
            yield
        finally:
            connection.execute(f"ALTER TABLE {table} DROP CONSTRAINT {rule}")


def test_where_an_original_can_not_be_kept_nothing_is_written_and_no_log_tells_it(stage: Stage) -> None:
    card, owner = a_card(dice("card")), as_customer()
    with originals_that_are_refused(stage, card):
        for door in stage.doors:
            answer = door.call("CreateTicket", owner, subject="s", description=f"My card is {card}")
            assert (answer.code, card in json.dumps(answer.payload)) == (INTERNAL, False)
    assert stage.rest.call("ListMyTickets", owner).resource["tickets"] == []
    assert traces(stage.stack.dsn, card) == {}
    eventually(lambda: b"no_such_original" in (stage.stack.logs / "api.log").read_bytes())
    assert not [log.name for log in stage.stack.logs.iterdir() if card.encode() in log.read_bytes()]


# --- Revealing --------------------------------------------------------------------------------------------------------


def history_of(stage: Stage, caller: Caller, ticket_id: str) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = stage.rest.call(
        "ListTicketHistory", caller, ticket_id=ticket_id, page_size=100
    ).resource["entries"]
    return entries


def test_a_supervisor_sees_the_texts_as_they_were_written_at_every_door_and_each_look_is_on_record(
    stage: Stage, life: Life, cards: dict[str, str]
) -> None:
    before = history_of(stage, life.agent, life.id)
    supervisors = [as_supervisor() for _ in stage.doors]
    shown = dict(life.resolved)
    shown |= {name: f"{name}: {cards[name]}" for name in ("subject", "description", "resolution_notes")}
    for door, supervisor in zip(stage.doors, supervisors, strict=True):
        assert door.call("RevealTicket", supervisor, ticket_id=life.id).resource == shown
        named = {"ticket_id": life.id, "comment_id": life.note["id"]}
        note = door.call("RevealComment", supervisor, **named).resource
        assert note == {**life.note, "comment": f"note: {cards['note']}"}
        assert door.call("GetTicket", supervisor, ticket_id=life.id).resource == life.resolved

    looks = history_of(stage, life.agent, life.id)[len(before) :]
    assert [look["actor"] for look in looks] == [
        {"user_id": supervisor.id, "role": "support_supervisor"} for supervisor in supervisors for _ in range(2)
    ]
    assert [look.get("comment_id") for look in looks] == [None, life.note["id"]] * len(stage.doors)
    assert {(look["event_type"], look["is_internal"], "sequence" in look) for look in looks} == {
        ("ticket_revealed", True, False)
    }
    moments = [datetime.fromisoformat(look["occurred_at"]) for look in looks]
    assert moments == sorted(moments)
    seen = history_of(stage, life.owner, life.id)
    assert seen == [entry for entry in before if not entry["is_internal"]]


def test_a_look_is_no_event_and_leaves_no_gap_in_what_follows(stage: Stage) -> None:
    owner = as_customer()
    ticket = open_ticket(stage.rest, owner, description="My PIN is 4711.")
    stage.rest.call("RevealTicket", as_supervisor(), ticket_id=ticket["id"])
    comment(stage.rest, owner, ticket)
    events = stage.topic.events_of(ticket["id"], 2)
    assert [(it["event_type"], it["sequence"]) for it in events] == [("ticket_created", 1), ("ticket_commented", 2)]
    positions = stage.query(
        "SELECT event_type, position FROM admin_service.ticket_events WHERE ticket_id = %s ORDER BY position",
        ticket["id"],
    )
    assert positions == [("ticket_created", 1), ("ticket_revealed", 2), ("ticket_commented", 3)]


def test_a_look_does_not_count_as_work_on_the_ticket(stage: Stage) -> None:
    since = "SELECT unattended_since, updated_at, version FROM admin_service.support_tickets WHERE id = %s"
    ticket = open_ticket(stage.rest, as_customer(), description="My PIN is 4711.")
    before = stage.query(since, ticket["id"])
    stage.rest.call("RevealTicket", as_supervisor(), ticket_id=ticket["id"])
    assert stage.query(since, ticket["id"]) == before


def test_a_retry_with_another_secret_is_told_from_the_first_at_every_door(stage: Stage) -> None:
    for door in stage.doors:
        owner, key = as_customer(), new_id()
        texts = [f"My PIN is {pin}." for pin in ("4711", "4711", "4712")]
        first, retried, other = (
            door.call("CreateTicket", owner, key=key, subject="s", description=text) for text in texts
        )
        assert first.resource == retried.resource
        assert first.resource["description"] == "My PIN is ****."
        assert other.reason == "IDEMPOTENCY_KEY_REUSED"
