"""What events become in the Notification Service's tables, whoever takes them in, however often and in what batches."""

import itertools
import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from uuid import UUID

import psycopg
import pytest
from nibble.support.v1.ticket_event_pb2 import TicketEvent
from prometheus_client import REGISTRY

from server.domain.callers import ITSELF, Caller, Role
from server.domain.events import EventDraft, EventType, Reason
from server.domain.tickets import Priority, Status
from server.notification.intake import IntakeSettings
from tests.integration.notifier_desk import NotifierDesk
from tests.integration.vocabulary import Row
from tests.system.vocabulary import dice
from tests.unit.ticket_story import TicketStory, agent, customer, supervisor


@pytest.fixture
def desk(dsn: str) -> NotifierDesk:
    """The intake on an empty database."""
    return NotifierDesk(dsn)


def counted() -> float:
    """How many new tickets were told, by the metric."""
    return REGISTRY.get_sample_value("nibble_notifications_total", {"type": "ticket_created"}) or 0.0


def types_of(rows: Sequence[Row]) -> list[str]:
    """What is told, in order."""
    return [row["type"] for row in rows]


# --- Who is told ------------------------------------------------------------------------------------------------------


def test_the_life_of_a_ticket_is_told_to_its_people_each_change_once(desk: NotifierDesk) -> None:
    owner, worker, boss, other = customer(), agent(), supervisor(), agent()
    desk.staff(worker, boss, other)
    story = desk.open_ticket(owner).comment(owner).assign(boss, worker).comment(worker).comment(owner)
    story.move(worker, Status.RESOLVED).comment(owner).move(worker, Status.CLOSED)
    desk.take_in(story.events)

    assert types_of(desk.told(owner)) == ["ticket_assigned", "ticket_commented", "ticket_resolved", "ticket_closed"]
    assert types_of(desk.told(worker)) == ["ticket_created", "ticket_commented", "ticket_commented", "ticket_commented"]
    assert types_of(desk.told(other)) == types_of(desk.told(boss)) == ["ticket_created", "ticket_commented"]


NOBODYS = [
    EventDraft(EventType.TICKET_RATED, rating=1),
    EventDraft(EventType.TICKET_FLAGGED, reason=Reason.UNATTENDED),
]


@pytest.mark.parametrize("draft", NOBODYS, ids=lambda draft: draft.event_type)
def test_what_nobody_is_told_of_is_passed_over_alone_and_amid_the_rest(desk: NotifierDesk, draft: EventDraft) -> None:
    owner, worker = customer(), agent()
    story = desk.open_ticket(owner).assign(worker).happen(ITSELF, draft).move(worker, Status.RESOLVED)
    desk.take_in(story.events)
    desk.take_in(story.happen(owner, draft).events[-1:])
    assert types_of(desk.told(owner)) == ["ticket_assigned", "ticket_resolved"]
    assert desk.told(worker) == []


def test_a_closing_by_the_service_itself_is_told_to_the_owner(desk: NotifierDesk) -> None:
    owner, worker = customer(), agent()
    story = desk.open_ticket(owner).move(worker, Status.RESOLVED).move(ITSELF, Status.CLOSED)
    desk.take_in(story.events)
    assert types_of(desk.told(owner)) == ["ticket_resolved", "ticket_closed"]


def test_a_notification_says_what_its_event_says(desk: NotifierDesk) -> None:
    owner, worker = customer(), agent()
    story = desk.open_ticket(owner, subject="Cold soup", priority=Priority.HIGH).assign(worker)
    desk.take_in(story.events)
    (row,) = desk.told(owner)
    event = story.events[1]
    assert {name: str(row[name]) for name in ("change_id", "event_id", "ticket_id", "actor_id", "actor_role")} == {
        "change_id": event.change_id,
        "event_id": event.event_id,
        "ticket_id": str(story.id),
        "actor_id": str(worker.id),
        "actor_role": "support_agent",
    }
    assert (row["subject"], row["priority"], row["status"]) == ("Cold soup", "high", "in_progress")
    assert (row["occurred_at"], row["created_at"], row["read_at"]) == (story.now, desk.clock.now, None)
    assert (row["number"], row["in_inbox"]) == (1, True)


def test_numbers_have_no_gap_and_the_unread_are_counted(desk: NotifierDesk) -> None:
    owner, worker = customer(), agent()
    for _ in range(3):
        desk.take_in(desk.open_ticket(owner).assign(worker).comment(worker).events)
    assert [row["number"] for row in desk.told(owner)] == [1, 2, 3, 4, 5, 6]
    row = desk.recipient(owner)
    assert (row["last_number"], row["unread_count"]) == (6, 6)


def test_a_batch_is_told_in_order_of_time_and_each_ticket_in_its_own_order(desk: NotifierDesk) -> None:
    worker, owner = agent(), customer()
    desk.staff(worker)
    stories = []
    for _ in range(5):
        stories.append(desk.open_ticket(owner).comment(owner))
        desk.pass_by(60)
    # A clock was set back between two changes.
    stories[1].events[1].occurred_at.FromDatetime(stories[0].now - timedelta(hours=1))
    shuffled = random.Random(1).sample(stories, 5)  # noqa: S311
    desk.take_in([event for story in shuffled for event in story.events])
    told = [(row["ticket_id"], row["type"]) for row in desk.told(worker)]
    assert told == [(story.id, what) for story in stories for what in ("ticket_created", "ticket_commented")]


def test_a_change_that_comes_again_under_another_event_id_is_not_told_again(desk: NotifierDesk) -> None:
    owner = customer()
    story = desk.open_ticket(owner).assign(agent())
    desk.take_in(story.events)
    for event in story.events:
        event.event_id = str(UUID(int=random.getrandbits(128)))
    desk.take_in(story.events)
    assert [row["number"] for row in desk.told(owner)] == [1]
    assert len(desk.emails(owner)) == 1


def test_what_happened_long_ago_is_told_to_nobody(desk: NotifierDesk) -> None:
    owner, worker = customer(), agent()
    old, new = desk.open_ticket(owner), desk.open_ticket(owner)
    old.assign(worker)
    desk.pass_by(timedelta(days=7).total_seconds() + 2)
    new.now = desk.clock.now
    desk.take_in([*old.events, *new.assign(worker).events])
    assert [row["ticket_id"] for row in desk.told(owner)] == [new.id]


# --- The staff directory ----------------------------------------------------------------------------------------------


def test_staff_are_known_from_what_they_do_and_not_from_what_they_are_given(desk: NotifierDesk) -> None:
    boss, worker, given = supervisor(), agent(), agent()
    desk.take_in(desk.open_ticket(customer()).assign(boss, given).comment(worker).events)
    before = counted()
    desk.take_in(desk.open_ticket(customer()).events)
    assert counted() == before + 2
    assert [types_of(desk.told(person)) for person in (boss, worker)] == [["ticket_created"]] * 2
    assert desk.told(given) == []
    assert desk.recipient(boss)["role"] == "support_supervisor"


def test_a_clock_that_is_ahead_makes_nobody_staff_for_longer_and_keeps_no_event_from_being_told(
    desk: NotifierDesk,
) -> None:
    worker, colleague = agent(), agent()
    desk.staff(colleague)
    desk.take_in(TicketStory(customer(), datetime(9999, 12, 31, 23, 50, tzinfo=UTC)).comment(worker).events)
    assert desk.recipient(worker)["last_seen_at"] == desk.clock.now
    assert types_of(desk.told(colleague)) == ["ticket_created"]
    desk.take_in(desk.open_ticket(customer()).events)
    assert types_of(desk.told(worker)) == ["ticket_created"]
    desk.pass_by(timedelta(days=31).total_seconds())
    desk.take_in(desk.open_ticket(customer()).events)
    assert len(desk.told(worker)) == 1


def test_within_a_batch_staff_are_told_from_the_moment_they_were_seen(desk: NotifierDesk) -> None:
    worker = agent()
    before, seen = desk.open_ticket(customer()), desk.open_ticket(customer())
    seen.assign(worker)
    desk.pass_by(60)
    after = desk.open_ticket(customer())
    desk.take_in([*before.events, *seen.events, *after.events])
    assert [row["ticket_id"] for row in desk.told(worker)] == [after.id]


def test_staff_who_were_not_seen_for_long_are_told_no_more_and_are_back_at_once(desk: NotifierDesk) -> None:
    worker = agent()
    desk.staff(worker)
    desk.pass_by(timedelta(days=30, seconds=1).total_seconds())
    desk.take_in(desk.open_ticket(customer()).events)
    assert desk.told(worker) == []
    desk.take_in(desk.open_ticket(customer()).comment(worker).events)
    desk.take_in(desk.open_ticket(customer()).events)
    assert len(desk.told(worker)) == 1


def test_being_seen_costs_a_write_once_an_hour(desk: NotifierDesk) -> None:
    worker = agent()
    seen = []
    for _ in range(4):
        desk.take_in(desk.open_ticket(customer()).comment(worker).events)
        seen.append(desk.recipient(worker)["last_seen_at"])
        desk.pass_by(25 * 60)
    assert seen[0] == seen[1] == seen[2] < seen[3]


@pytest.mark.parametrize("in_one_batch", [True, False])
def test_who_acts_in_another_role_is_told_as_staff_no_more(desk: NotifierDesk, *, in_one_batch: bool) -> None:
    worker, demoted = agent(), agent()
    desk.staff(worker, demoted)
    desk.pass_by(60)
    now_a_customer = Caller(demoted.id, Role.CUSTOMER)
    acted, after = desk.open_ticket(now_a_customer), desk.open_ticket(customer())
    for events in [[*acted.events, *after.events]] if in_one_batch else [acted.events, after.events]:
        desk.take_in(events)
    assert [row["ticket_id"] for row in desk.told(worker)] == [acted.id, after.id]
    assert desk.told(demoted) == []
    row = desk.recipient(demoted)
    assert (row["role"], row["last_seen_at"]) == (None, desk.clock.now)


def test_what_is_older_than_the_last_sighting_makes_nobody_staff_nor_anybody_else(desk: NotifierDesk) -> None:
    demoted, promoted = agent(), agent()
    before = desk.open_ticket(customer()).comment(demoted).events, desk.open_ticket(Caller(promoted.id, Role.CUSTOMER))
    desk.pass_by(3600)
    desk.staff(demoted)
    desk.take_in(desk.open_ticket(customer()).comment(promoted).events)
    desk.pass_by(60)
    desk.take_in(desk.open_ticket(Caller(demoted.id, Role.CUSTOMER)).events)
    beside, after = desk.open_ticket(customer()), desk.open_ticket(customer())
    desk.take_in([*before[0], *before[1].events, *beside.events])
    assert (desk.recipient(demoted)["role"], desk.recipient(promoted)["role"]) == (None, "support_agent")
    desk.take_in(after.events)
    assert {beside.id, after.id} <= {row["ticket_id"] for row in desk.told(promoted)}
    assert {beside.id, after.id}.isdisjoint(row["ticket_id"] for row in desk.told(demoted))


def test_who_was_no_staff_meanwhile_is_back_at_once(desk: NotifierDesk) -> None:
    worker = agent()
    stories = [desk.open_ticket(customer()) for _ in range(4)]
    for story, person in zip(stories, (worker, Caller(worker.id, Role.DRIVER), worker, customer()), strict=True):
        story.now = desk.clock.now
        desk.take_in(story.comment(person).events)
        desk.pass_by(1)
    assert [row["ticket_id"] for row in desk.told(worker)] == [stories[1].id, stories[3].id]


def test_those_who_never_were_staff_get_no_row_by_acting(desk: NotifierDesk) -> None:
    owner = customer()
    desk.take_in(desk.open_ticket(owner).comment(owner).events)
    assert desk.rows(b"SELECT * FROM notification_service.recipients") == []


# --- Mutes ------------------------------------------------------------------------------------------------------------


def test_a_muted_type_comes_by_no_channel(desk: NotifierDesk) -> None:
    owner, worker = customer(), agent()
    desk.mute(owner, types=["ticket_assigned"])
    desk.take_in(desk.open_ticket(owner).assign(worker).comment(worker).events)
    assert types_of(desk.told(owner)) == ["ticket_commented"]
    assert [row["number"] for row in desk.told(owner)] == [1]
    assert len(desk.emails(owner)) == 1


def test_with_the_inbox_muted_the_row_is_there_for_the_e_mail_alone(desk: NotifierDesk) -> None:
    owner = customer()
    desk.mute(owner, channels=["inbox"])
    desk.take_in(desk.open_ticket(owner).assign(agent()).events)
    (row,) = desk.told(owner)
    (mail,) = desk.emails(owner)
    assert (row["in_inbox"], row["email_id"]) == (False, mail["id"])
    assert desk.recipient(owner)["unread_count"] == 0


def test_with_e_mail_muted_there_is_none(desk: NotifierDesk) -> None:
    owner, worker = customer(), agent()
    desk.staff(worker)
    desk.mute(owner, channels=["email"])
    desk.mute(worker, channels=["email"])
    desk.take_in(desk.open_ticket(owner).assign(worker).events)
    assert [row["email_id"] for row in desk.told(owner) + desk.told(worker)] == [None, None]
    assert desk.emails() == []


def test_with_both_channels_muted_nothing_is_written(desk: NotifierDesk) -> None:
    owner = customer()
    desk.mute(owner, channels=["inbox", "email"])
    desk.take_in(desk.open_ticket(owner).assign(agent()).events)
    assert desk.told(owner) == desk.emails(owner) == []


# --- E-mails ----------------------------------------------------------------------------------------------------------


def test_an_owner_gets_an_e_mail_at_once_for_each_notification(desk: NotifierDesk) -> None:
    owner, worker = customer(), agent()
    desk.take_in(desk.open_ticket(owner, priority=Priority.LOW).assign(worker).comment(worker).events)
    mails = desk.emails(owner)
    assert [(mail["kind"], mail["due_at"]) for mail in mails] == [("single", desk.clock.now)] * 2
    assert {row["email_id"] for row in desk.told(owner)} == {mail["id"] for mail in mails}


def test_a_burst_makes_one_digest_for_an_agent_and_an_e_mail_for_each_ticket_that_presses(desk: NotifierDesk) -> None:
    worker = agent()
    desk.staff(worker)
    priorities = [Priority.URGENT, Priority.HIGH] + [Priority.MEDIUM, Priority.LOW] * 9
    for priority in priorities:
        desk.take_in(desk.open_ticket(customer(), priority=priority).events)
        desk.pass_by(1)
    mails = desk.emails(worker)
    assert sorted(mail["kind"] for mail in mails) == ["digest", "single", "single"]
    (digest,) = (mail for mail in mails if mail["kind"] == "digest")
    assert sum(row["email_id"] == digest["id"] for row in desk.told(worker)) == 18


def test_a_digest_is_due_a_window_after_its_first_notification(desk: NotifierDesk) -> None:
    worker = agent()
    desk.staff(worker)
    first = desk.clock.now
    for _ in range(3):
        desk.take_in(desk.open_ticket(customer()).events)
        desk.pass_by(25)
    (digest,) = desk.emails(worker)
    assert (digest["due_at"], digest["next_attempt_at"]) == (first + timedelta(seconds=60),) * 2


def test_a_staff_member_who_owns_a_ticket_is_told_at_once_as_its_owner(desk: NotifierDesk) -> None:
    worker, colleague = agent(), agent()
    desk.take_in(desk.open_ticket(worker).assign(colleague).events)
    assert [mail["kind"] for mail in desk.emails(worker)] == ["single"]


# --- Any batches, any order, any number of consumers ------------------------------------------------------------------


def lives(desk: NotifierDesk, chance: random.Random, staff: list[Caller], count: int) -> list[TicketStory]:
    """Tickets with a few acts each; half of them of the same few people."""
    owners = [customer() for _ in range(3)]
    stories = []
    for number in range(count):
        owner = owners[number % 3] if number % 2 else customer()
        stories.append(desk.open_ticket(owner, priority=chance.choice(list(Priority))))
        for _ in range(chance.randrange(6)):
            stories[-1].live(chance, owner, staff)
    return stories


def shuffled(chance: random.Random, stories: Sequence[TicketStory]) -> list[TicketEvent]:
    """The events of all tickets mixed by chance, each ticket's in their order."""
    queues = [list(story.events) for story in stories]
    order = [number for number, queue in enumerate(queues) for _ in queue]
    chance.shuffle(order)
    return [queues[number].pop(0) for number in order]


def batches(chance: random.Random, events: Sequence[TicketEvent], most: int) -> list[Sequence[TicketEvent]]:
    """The events in order, cut by chance."""
    cuts = sorted({0, len(events), *(chance.randrange(len(events)) for _ in range(len(events) // most))})
    return [events[start:end] for start, end in itertools.pairwise(cuts)]


def what_is_told(desk: NotifierDesk) -> set[tuple[object, ...]]:
    """Every notification, without what only the order of tickets decides, and how it is mailed."""
    rows = desk.rows(
        b"SELECT n.recipient_id, change_id, event_id, type, subject, priority, status, in_inbox, kind"
        b" FROM notification_service.notifications n LEFT JOIN notification_service.emails e ON e.id = n.email_id"
    )
    return {tuple(row.values()) for row in rows}


def is_consistent(desk: NotifierDesk) -> None:
    """Numbers without gap, and counts that are those of the rows."""
    wrong = desk.rows(
        b"SELECT user_id FROM notification_service.recipients LEFT JOIN ("
        b" SELECT recipient_id, count(*) AS all_of_them, max(number) AS highest,"
        b" count(*) FILTER (WHERE in_inbox AND read_at IS NULL) AS unread"
        b" FROM notification_service.notifications GROUP BY 1) n ON recipient_id = user_id"
        b" WHERE (last_number, last_number, unread_count)"
        b" <> (coalesce(all_of_them, 0), coalesce(highest, 0), coalesce(unread, 0))"
    )
    assert wrong == []


def test_the_same_events_in_any_batches_and_order_of_tickets_tell_the_same(desk: NotifierDesk) -> None:
    chance = dice("batches")
    staff = [agent() for _ in range(4)]
    stories = lives(desk, chance, staff, 30)
    results = []
    for most in (1, 5, 1000):
        desk.run(b"TRUNCATE notification_service.recipients, notification_service.notifications")
        desk.run(b"TRUNCATE notification_service.emails")
        desk.staff(*staff)
        desk.mute(staff[0], types=["ticket_created"])
        for batch in batches(chance, shuffled(chance, stories), most):
            desk.take_in(batch)
        is_consistent(desk)
        results.append(what_is_told(desk))
    assert results[0] == results[1] == results[2]
    assert len(results[0]) > 100


def test_consumers_at_once_never_wait_for_each_other_in_a_circle(desk: NotifierDesk) -> None:
    chance = dice("consumers")
    staff = [agent() for _ in range(10)]
    desk.staff(*staff)
    stories = lives(desk, chance, staff, 120)
    shares = [stories[number::4] for number in range(4)]

    def consume(share: list[TicketStory]) -> None:
        for batch in batches(random.Random(len(share)), shuffled(random.Random(1), share), 8):  # noqa: S311
            desk.take_in(batch)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(consume, shares))
    is_consistent(desk)
    together = what_is_told(desk)

    desk.run(b"TRUNCATE notification_service.recipients, notification_service.notifications")
    desk.run(b"TRUNCATE notification_service.emails")
    desk.staff(*staff)
    desk.take_in(shuffled(chance, stories))
    assert what_is_told(desk) == together


def test_a_batch_that_is_rolled_back_leaves_nothing(desk: NotifierDesk) -> None:
    worker = agent()
    desk.staff(worker)
    before = counted()
    with psycopg.connect(desk.dsn) as connection:
        desk.intake.apply(connection, desk.open_ticket(customer()).events)
        connection.rollback()
    assert counted() == before
    assert desk.told(worker) == desk.emails(worker) == []
    assert desk.recipient(worker)["last_number"] == 0


def test_the_settings_of_the_intake_are_at_work(dsn: str) -> None:
    desk = NotifierDesk(dsn, IntakeSettings(timedelta(hours=1), timedelta(hours=2), timedelta(seconds=5)))
    worker, gone = agent(), agent()
    desk.staff(gone)
    desk.pass_by(7201)
    desk.staff(worker)
    desk.take_in(desk.open_ticket(customer()).events)
    assert [mail["due_at"] for mail in desk.emails()] == [desk.clock.now + timedelta(seconds=5)]
    assert (len(desk.told(worker)), desk.told(gone)) == (1, [])
    late = desk.open_ticket(customer())
    desk.pass_by(3601)
    desk.take_in(late.events)
    assert len(desk.told(worker)) == 1
