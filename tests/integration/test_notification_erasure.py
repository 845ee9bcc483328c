"""What becomes of an erased user in the Notification Service, in whatever order events come, and however often."""

import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from server.domain.privacy import ERASED
from server.domain.tickets import Priority, Status
from tests.integration.mail_catcher import MailCatcher
from tests.integration.notifier_desk import NotifierDesk
from tests.integration.traces import traces
from tests.system.vocabulary import dice
from tests.unit.ticket_story import TicketStory, agent, customer, supervisor


@pytest.fixture
def desk(dsn: str) -> Iterator[NotifierDesk]:
    """Intake and sender on an empty database."""
    desk = NotifierDesk(dsn)
    yield desk
    desk.close()


def subjects(desk: NotifierDesk) -> set[str]:
    """Of all notifications that there are."""
    return {row["subject"] for row in desk.rows(b"SELECT DISTINCT subject FROM notification_service.notifications")}


def test_all_that_is_kept_of_the_user_goes_and_others_are_left_with_what_names_nobody(desk: NotifierDesk) -> None:
    owner, worker, boss, other = customer(), agent(), supervisor(), customer()
    desk.staff(worker, boss)
    desk.mute(owner, types=["ticket_closed"])
    story = desk.open_ticket(owner, subject="Marzipan").assign(boss, worker).comment(worker).comment(owner)
    story.move(worker, Status.RESOLVED)
    unrelated = desk.open_ticket(other, subject="Cold soup").assign(boss, worker)
    desk.take_in([*story.events, *unrelated.events])
    assert traces(desk.dsn, owner.id, "Marzipan").keys() == {str(owner.id), "Marzipan"}
    before = {person: desk.told(person) for person in (worker, boss, other)}
    mails = {person: desk.emails(person) for person in (worker, boss, other)}

    desk.take_in(story.erase(boss).events[-1:])
    assert traces(desk.dsn, owner.id, "Marzipan") == {}
    for person, rows in before.items():
        left = desk.told(person)
        assert len(left) == len(rows)
        for row, old in zip(left, rows, strict=True):
            is_erased = old["ticket_id"] == story.id
            assert row["subject"] == (ERASED if is_erased else old["subject"])
            assert row == old | {"subject": row["subject"], "actor_id": row["actor_id"]}
        assert desk.emails(person) == mails[person]
    by_owner = {row["actor_id"] for row in desk.told(worker) if row["actor_role"] == "customer"}
    assert {row["pseudonym"] for row in desk.rows(b"SELECT * FROM notification_service.erased_tickets")} < by_owner


def test_what_comes_again_after_the_erasure_does_not_bring_the_user_back(desk: NotifierDesk) -> None:
    owner, worker = customer(), agent()
    desk.staff(worker)
    story = desk.open_ticket(owner, subject="Marzipan").assign(worker).comment(worker).comment(owner).erase(worker)
    desk.take_in(story.events[-1:])
    desk.take_in(story.events[:-1])
    assert traces(desk.dsn, owner.id, "Marzipan") == {}
    assert [(row["type"], row["subject"]) for row in desk.told(worker)] == [
        ("ticket_created", ERASED),
        ("ticket_commented", ERASED),
    ]


def test_an_erased_owner_is_told_nothing_of_what_happens_later(desk: NotifierDesk) -> None:
    owner, worker = customer(), agent()
    story = desk.open_ticket(owner).erase(worker)
    desk.take_in(story.events)
    desk.take_in(story.assign(worker).comment(worker).move(worker, Status.CLOSED).events[2:])
    assert desk.rows(b"SELECT * FROM notification_service.notifications") == []
    assert desk.emails() == []


def test_a_staff_member_who_is_erased_as_an_owner_is_not_made_staff_by_the_pseudonym(desk: NotifierDesk) -> None:
    owner, worker = agent(), agent()
    story = desk.open_ticket(owner).comment(owner).erase(worker)
    desk.take_in(story.events)
    desk.take_in(story.events[:-1])
    assert traces(desk.dsn, owner.id) == {}
    assert desk.rows(b"SELECT * FROM notification_service.recipients") == []


def test_an_erasure_that_is_told_again_without_the_users_id_still_takes_the_subject(desk: NotifierDesk) -> None:
    owner, worker = customer(), agent()
    desk.staff(worker)
    story = desk.open_ticket(owner, subject="Marzipan").erase(worker)
    desk.take_in(story.events[:1])
    story.events[-1].ClearField("erased_user_id")
    desk.take_in(story.events[-1:])
    assert subjects(desk) == {ERASED}


def test_in_any_order_and_batches_no_trace_is_left_and_others_are_told_the_same(desk: NotifierDesk) -> None:
    chance = dice("erased tickets in any order")
    staff, boss = [agent() for _ in range(3)], supervisor()
    erased, kept = [customer() for _ in range(3)], customer()
    stories: list[TicketStory] = []
    for owner in [*erased, *erased, kept]:
        subject = "Cold soup" if owner == kept else "Marzipan"
        stories.append(desk.open_ticket(owner, subject=subject, priority=chance.choice(list(Priority))))
        for _ in range(chance.randrange(5)):
            stories[-1].live(chance, owner, staff)
        if owner != kept:
            stories[-1].erase(boss)
    events = [event for story in stories for event in story.events]
    told = []
    for most in (1, 3, len(events)):
        desk.run(
            b"TRUNCATE notification_service.recipients, notification_service.notifications,"
            b" notification_service.emails, notification_service.erased_tickets"
        )
        desk.staff(*staff)
        chance.shuffle(events)
        for start in range(0, len(events), most):
            desk.take_in(events[start : start + most])
        assert traces(desk.dsn, "Marzipan", *(person.id for person in erased)) == {}
        rows = desk.rows(
            b"SELECT recipient_id, event_id, type, subject, status FROM notification_service.notifications"
            b" WHERE recipient_id = ANY (%s)",
            [person.id for person in (*staff, kept)],
        )
        told.append({tuple(row.values()) for row in rows})
    assert told[0] == told[1] == told[2]


def test_consumers_that_erase_at_once_never_wait_in_a_circle(desk: NotifierDesk) -> None:
    chance = dice("erasing consumers")
    staff, owners = [agent() for _ in range(6)], [customer() for _ in range(10)]
    desk.staff(*staff)
    stories = [desk.open_ticket(owners[n % 10]).assign(staff[n % 6]).comment(staff[n % 6]) for n in range(80)]
    for story in stories:
        story.erase(staff[0])

    def consume(share: list[TicketStory]) -> None:
        events = [event for story in share for event in story.events]
        for start in range(0, len(events), 7):
            desk.take_in(events[start : start + 7])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(consume, [chance.sample(stories[n::4], 20) for n in range(4)]))
    assert traces(desk.dsn, *(owner.id for owner in owners)) == {}
    assert subjects(desk) == {ERASED}


def test_those_who_read_meanwhile_and_an_erasure_never_wait_in_a_circle(desk: NotifierDesk) -> None:
    worker, owner = agent(), customer()
    desk.staff(worker)
    story = desk.open_ticket(owner)
    for _ in range(30):
        story.comment(owner)
    desk.take_in(story.events)
    story.erase(worker)
    stop = threading.Event()

    def mark() -> None:
        ids = [row["id"] for row in desk.told(worker)]
        with psycopg.connect(desk.dsn, autocommit=True) as connection:
            while not stop.is_set():
                random.shuffle(ids)
                with connection.transaction():
                    connection.execute(
                        "SELECT FROM notification_service.recipients WHERE user_id = %s FOR UPDATE", [worker.id]
                    )
                    for some in (ids[:10], ids[10:20]):
                        connection.execute(
                            "UPDATE notification_service.notifications SET read_at = NULL WHERE id = ANY (%s)", [some]
                        )

    with ThreadPoolExecutor(1) as pool:
        reader = pool.submit(mark)
        try:
            for _ in range(20):
                desk.take_in(story.events[-1:])
        finally:
            stop.set()
        reader.result()
    assert subjects(desk) == {ERASED}


def test_e_mails_that_wait_for_the_user_are_gone_and_those_for_others_say_nothing_of_it(
    desk: NotifierDesk,
) -> None:
    with MailCatcher().listening() as catcher:
        owner, worker = customer(), agent()
        desk.staff(worker)
        story = desk.open_ticket(owner, subject="Marzipan").assign(worker)
        desk.take_in(story.events)
        desk.take_in(story.erase(worker).events[-1:])
        assert desk.emails(owner) == []
        desk.pass_by(3600)
        sender = desk.sender(catcher)
        while desk.send(sender):
            pass
        (digest,) = catcher.mails
        assert "Marzipan" not in digest.as_string()
        assert ERASED in digest.as_string()
        assert desk.rows(b"SELECT * FROM notification_service.emails WHERE state <> 'sent'") == []
