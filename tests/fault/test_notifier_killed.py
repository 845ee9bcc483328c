"""The notifier killed in the middle of its work, and what it stands on taken away: all are told once, nothing lost."""

import random
from bisect import bisect
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import groupby
from typing import Any, NamedTuple
from uuid import UUID

import psutil
import pytest

from devstack.mail import Mail
from tests.fault.load import Shift, Work, at_work
from tests.system.doors import Caller
from tests.system.stage import Stage, small_stage
from tests.system.vocabulary import as_agent, as_customer, comment, dice, eventually, open_ticket

KILLS = 5
SENDERS = 2
AGENTS = 3
SETTINGS = {
    "DIGEST_WINDOW_SECONDS": "4",
    "SENDER_THREADS": str(SENDERS),
    # As short as may be, so that what a killed one held is soon taken over.
    "EMAIL_LEASE_SECONDS": "5",
    "CONSUMER_SESSION_TIMEOUT_SECONDS": "1",
    "EMAIL_RETRY_SECONDS": "0.2",
    "EMAIL_RETRY_MAX_SECONDS": "1",
}
WITHIN = 60.0


class Told(NamedTuple):
    """Who is to be told of which change."""

    recipient_id: UUID
    change_id: UUID


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    """A system of its own, whose staff are these tests' alone; others have hundreds of agents."""
    parts = {"postgres", "kafka", "user-service", "mail", "migrate", "api", "relay", "notifier", "gateway"}
    with small_stage(parts, **SETTINGS) as started:
        yield started


class Team(NamedTuple):
    """All the staff there are, and the last event before the notifier knew all of them."""

    agents: list[Caller]
    known_since: int

    def is_told_of(self, stage: Stage) -> set[Told]:
        """Who is to be told what, by the contract's table, from the events of the database since the team is known."""
        changes = stage.query(
            "SELECT change_id, event_type, actor_id, ticket FROM admin_service.ticket_events"
            " WHERE NOT is_internal AND row_no > %s ORDER BY change_id",
            self.known_since,
        )
        told = set()
        for change_id, group in groupby(changes, key=lambda row: row[0]):
            events = {event_type: (actor, ticket) for _, event_type, actor, ticket in group}
            actor, ticket = next(iter(events.values()))
            told |= {Told(person, change_id) for person in self._concerned(events.keys(), actor, ticket) - {actor}}
        return told

    def _concerned(self, types: Any, actor: UUID, ticket: dict[str, Any]) -> set[UUID]:  # noqa: ANN401
        owner, assignee = UUID(ticket["user_id"]), ticket["assigned_to"]
        everybody = {UUID(agent.id) for agent in self.agents}
        if "ticket_created" in types:
            return everybody
        if "ticket_commented" in types and actor == owner:
            return {UUID(assignee)} if assignee else everybody
        return {owner}


@pytest.fixture(scope="module")
def team(stage: Stage) -> Team:
    """Known to the notifier by a comment each."""
    agents = [as_agent() for _ in range(AGENTS)]
    ticket = open_ticket(stage.grpc, as_customer())
    for agent in agents:
        comment(stage.grpc, agent, ticket)
    all_is_told(stage)
    ((last,),) = stage.query("SELECT max(row_no) FROM admin_service.ticket_events")
    return Team(agents, last)


def all_is_told(stage: Stage) -> None:
    """Waits until every event was taken in and no e-mail waits any more."""
    untold = (
        "SELECT count(*) FROM admin_service.ticket_events WHERE NOT is_internal AND NOT EXISTS"
        " (SELECT FROM notification_service.consumed_events WHERE event_id = id)"
    )
    eventually(lambda: stage.query(untold) == [(0,)], WITHIN)
    waiting = "SELECT count(*) FROM notification_service.emails WHERE state = 'waiting'"
    eventually(lambda: stage.query(waiting) == [(0,)], WITHIN)


def each_was_told_once(stage: Stage, team: Team) -> dict[str, list[Mail]]:
    """The copies of each e-mail that came, by its Message-ID, after the checks that everything must stand.

    There is one row for each recipient and change, none is missing, none is too many, and every e-mail was sent.
    """
    all_is_told(stage)
    changes = (
        "SELECT recipient_id, change_id FROM notification_service.notifications"
        " JOIN admin_service.ticket_events e USING (change_id) WHERE event_id = e.id AND row_no > %s"
    )
    found = Counter(Told._make(row) for row in stage.query(changes, team.known_since))
    assert found == dict.fromkeys(team.is_told_of(stage), 1)
    emails = stage.query("SELECT id, state FROM notification_service.emails")
    assert {state for _, state in emails} == {"sent"}
    copies: dict[str, list[Mail]] = {}
    for mail in stage.stack.mails.all():
        copies.setdefault(mail.message_id, []).append(mail)
    assert copies.keys() == {f"<{email_id}@nibble.example>" for email_id, _ in emails}
    return copies


def killed(stage: Stage) -> datetime:
    """Kills the notifier; when the mail server had heard the last of it."""
    stage.stack.part("notifier").kill()
    server = psutil.Process(stage.stack.part("mail").pid)
    open_ones = {psutil.CONN_ESTABLISHED, psutil.CONN_CLOSE_WAIT}
    eventually(lambda: not any(it.status in open_ones for it in server.net_connections("tcp")))
    return datetime.now(UTC)


def in_hand(copies: Iterable[Sequence[Mail]], kills: Sequence[datetime]) -> Counter[int]:
    """How many mails each life of the notifier had sent and not noted when it was killed: those that came again.

    Between any two copies of a mail there was a kill.
    """
    lives = [[bisect(kills, mail.caught_at) for mail in of_one] for of_one in copies]
    for of_one in lives:
        assert len(set(of_one)) == len(of_one)
    return Counter(life for of_one in lives for life in of_one[:-1])


def tickets_that_live(stage: Stage, team: Team) -> Work:
    """Work: tickets are opened, taken over, talked about and resolved, until it is enough."""

    def work(_number: int, shift: Shift) -> None:
        door, call = stage.grpc, shift.ledger.call
        while not shift.enough.is_set():
            count = len(shift.ledger.tickets)
            # Others each time: the gateway would soon slow down one alone.
            owner, agent = as_customer(), team.agents[count % AGENTS]
            ticket = shift.ledger.create(door, owner, priority=("low", "urgent", "medium")[count % 3]).resource["id"]
            call(door, "AddComment", owner, ticket_id=ticket, comment="Anybody there?")
            call(door, "AssignTicket", agent, ticket_id=ticket, assigned_to=agent.id)
            call(door, "AddComment", agent, ticket_id=ticket, comment="I am here.")
            call(door, "AddComment", owner, ticket_id=ticket, comment="Any news?")
            call(door, "UpdateTicketStatus", agent, ticket_id=ticket, status="resolved")
            shift.enough.wait(0.6)

    return work


def let_it_work(stage: Stage, chance: random.Random) -> None:
    """Waits until the notifier has told or mailed a few more: any moment in its work."""

    def told() -> int:
        ((count,),) = stage.query("SELECT count(*) FROM notification_service.notifications")
        return int(count)

    def mailed() -> int:
        return len(list(stage.stack.mails.folder.glob("new/*")))

    done = chance.choice([told, mailed])
    enough = done() + chance.randint(1, 12)
    eventually(lambda: done() >= enough, WITHIN)


def test_a_notifier_killed_again_and_again_tells_everybody_once(stage: Stage, team: Team) -> None:
    chance, notifier = dice("notifier"), stage.stack.part("notifier")
    kills: list[datetime] = []
    with at_work(1, tickets_that_live(stage, team)) as shift:
        for _ in range(KILLS):
            let_it_work(stage, chance)
            kills.append(killed(stage))
            notifier.start()
    ledger = shift.finish()
    assert len(ledger.ticket_ids) > KILLS

    mails = each_was_told_once(stage, team)
    again = in_hand(mails.values(), kills)
    print(f"{len(ledger.ticket_ids)} tickets, {len(mails)} e-mails, {again.total()} more copies")  # noqa: T201
    # One for each sender, where the kill fell between the mail server's answer and the note of it.
    assert max(again.values(), default=0) <= SENDERS
    assert all({mail.recipients for mail in of_one} == {of_one[0].recipients} for of_one in mails.values())


def test_what_happens_while_mail_server_and_user_service_are_down_is_mailed_once_when_they_are_back(
    stage: Stage, team: Team
) -> None:
    stack, agent = stage.stack, team.agents[0]
    before = {mail.message_id for mail in stack.mails.all()}

    def answer_tickets() -> None:
        for _ in range(5):
            comment(stage.grpc, agent, open_ticket(stage.grpc, as_customer()))

    stack.mail.give(behaviour="gone")
    answer_tickets()
    tried = "SELECT 1 FROM notification_service.emails WHERE state = 'waiting' AND attempts > 1"
    eventually(lambda: stage.query(tried), WITHIN)
    stack.user_service.give(behaviour="gone")
    answer_tickets()
    put_off = "SELECT 1 FROM notification_service.emails WHERE last_error LIKE 'the User Service%%'"
    eventually(lambda: stage.query(put_off), WITHIN)
    stack.mail.give()
    stack.user_service.give()

    mails = each_was_told_once(stage, team)
    assert mails.keys() > before
    assert {len(mails[message_id]) for message_id in mails.keys() - before} == {1}


def test_a_burst_of_tickets_is_one_digest_for_an_agent_and_one_mail_for_each_that_presses(
    stage: Stage, team: Team
) -> None:
    all_is_told(stage)
    before = len(stage.stack.mails.all())
    for priority in ["urgent", *["medium", "low"] * 8, "high", "urgent", "urgent"]:
        open_ticket(stage.grpc, as_customer(), priority=priority)
    each_was_told_once(stage, team)
    got: dict[str, Counter[str]] = {}
    for mail in stage.stack.mails.all()[before:]:
        (recipient,) = mail.recipients
        got.setdefault(recipient, Counter())[mail.subject] += 1
    assert (
        list(got.values())
        == [
            {
                "New urgent ticket: Cold soup": 3,
                "New high ticket: Cold soup": 1,
                "16 support updates on 16 tickets": 1,
            }
        ]
        * AGENTS
    )
