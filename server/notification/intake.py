"""What the Notification Service does with events: who is told of them becomes rows, in the consumer's transaction.

A batch of any size takes the same few statements. Those who are to be told are locked first, all of them and in one
order, so that several consumers never wait for each other in a circle.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from operator import itemgetter
from typing import Any, NamedTuple
from uuid import UUID

from nibble.support.v1 import actor_pb2, ticket_event_pb2, ticket_pb2
from psycopg import Connection, RawCursor

from server import telemetry
from server.db.statement import Statement
from server.domain.callers import Role
from server.notification import rules, statements
from server.notification.ids import id_at
from server.notification.rules import Erasure, Event, Mutes, Sighting
from server.notification.words import ERASED, Channel, Priority, Rank, Status, Type

# A staff member who goes on being seen is noted so often, that not every event costs a write.
_LONGEST_UNNOTED = timedelta(hours=1)
_UNNOTED_SHARE = 20

_EventType = ticket_event_pb2.TicketEvent.Type
# Events of other types tell nobody anything.
_TELLING = frozenset(_EventType.Value(type_) for type_ in Type)
_Reason = ticket_event_pb2.TicketEvent.Reason
_Role = actor_pb2.Actor.Role
_Status = ticket_pb2.Ticket.Status
_Priority = ticket_pb2.Ticket.Priority


class IntakeSettings(NamedTuple):
    """How old an event may be and still be told, how long staff count as such unseen, how long digests collect."""

    notify_within: timedelta = timedelta(days=7)
    staff_seen_within: timedelta = timedelta(days=30)
    digest_window: timedelta = timedelta(seconds=60)


class _Pair(NamedTuple):
    """One person to be told of one event, by some channels."""

    event: Event
    recipient_id: UUID
    channels: frozenset[Channel] = frozenset(Channel)


class Intake:
    """The consumer frame's handler."""

    def __init__(self, settings: IntakeSettings, clock: Callable[[], datetime]) -> None:
        self._settings = settings
        self._clock = clock

    def apply(self, connection: Connection[Any], events: Sequence[ticket_event_pb2.TicketEvent]) -> Callable[[], None]:
        """Write what these events tell to whom, in the caller's open transaction; what is returned counts them.

        Erasures are done; other events of types that are no notification's are passed over.
        """
        work = _Work(RawCursor(connection), self._settings, self._clock())
        erasures = [erasure_of(message) for message in events if message.event_type == _EventType.ticket_erased]
        happened = work.without_erased(
            _as_it_happened([event_of(message) for message in events if message.event_type in _TELLING]), erasures
        )
        staff = work.staff_for(happened)
        gone = {erasure.user_id for erasure in erasures}
        pairs = [_Pair(event, person) for event in happened for person in work.told(event, staff) if person not in gone]
        work.meet({pair.recipient_id for pair in pairs} | work.concerned(erasures), staff.news())
        written = work.write(work.wanted(pairs))
        work.erase(erasures)
        return lambda: _count(written, work.too_old)


class _Staff:
    """The staff directory as the batch finds it and as its events change it: the newest sighting of each counts."""

    def __init__(self, known: Iterable[tuple[UUID, str | None, datetime]], unnoted: timedelta) -> None:
        """Args: unnoted: how long a staff member may go on being seen without a note of it."""
        self._unnoted = unnoted
        self._noted = {user_id: Sighting(user_id, Role(role) if role else None, at) for user_id, role, at in known}
        self._seen = dict(self._noted)

    def see(self, sighting: Sighting) -> None:
        """Take note, where it is news; that somebody is no staff is none of those who never were."""
        before = self._seen.get(sighting.user_id)
        if before is None and sighting.role is None:
            return
        if before is None or sighting.at > before.at:
            self._seen[sighting.user_id] = sighting

    @property
    def last_seen(self) -> dict[UUID, datetime]:
        """When each of the staff was last seen."""
        return {user_id: sighting.at for user_id, sighting in self._seen.items() if sighting.role}

    def news(self) -> dict[UUID, Sighting]:
        """What is to be written: who is new, whose role is another, and whose note is out of date."""
        return {user_id: sighting for user_id, sighting in self._seen.items() if self._is_news(sighting)}

    def _is_news(self, sighting: Sighting) -> bool:
        noted = self._noted.get(sighting.user_id)
        if noted is None or sighting.role is not noted.role:
            return True
        return sighting.role is not None and sighting.at > noted.at + self._unnoted


class _Work:
    """One batch's statements."""

    def __init__(self, cursor: RawCursor[Any], settings: IntakeSettings, now: datetime) -> None:
        self._cursor = cursor
        self._settings = settings
        self._unnoted = min(_LONGEST_UNNOTED, settings.staff_seen_within / _UNNOTED_SHARE)
        self.now = now
        self.too_old = 0
        """Events that told nobody since they were too old."""

    def without_erased(self, events: Sequence[Event], erasures: Sequence[Erasure]) -> list[Event]:
        """The events; those of tickets that were erased, in this batch or ever before, as they are to be told since."""
        if not events:
            return []
        rows = self._rows(statements.LIST_ERASED, ticket_ids=list({event.ticket_id for event in events}))
        pseudonyms = {erasure.ticket_id: erasure.pseudonym for erasure in erasures} | dict(rows)
        return [
            rules.erased(event, pseudonyms[event.ticket_id]) if event.ticket_id in pseudonyms else event
            for event in events
        ]

    def concerned(self, erasures: Sequence[Erasure]) -> set[UUID]:
        """Those whose rows an erasure changes: who is erased, and everybody who was told of the tickets."""
        if not erasures:
            return set()
        rows = self._rows(statements.LIST_TOLD_OF_TICKETS, ticket_ids=[erasure.ticket_id for erasure in erasures])
        return {recipient for (recipient,) in rows} | {it.user_id for it in erasures if it.user_id}

    def erase(self, erasures: Sequence[Erasure]) -> None:
        """Erase the tickets in what was told, and all that is kept of their owners; the concerned are locked."""
        if not erasures:
            return
        ticket_ids, pseudonyms, user_ids = (list(column) for column in zip(*erasures, strict=True))
        self._run(statements.NOTE_ERASED, ticket_ids=ticket_ids, pseudonyms=pseudonyms)
        values = {"ticket_ids": ticket_ids, "pseudonyms": pseudonyms, "user_ids": user_ids}
        self._run(statements.ERASE_TICKETS, **values, erased=ERASED)
        self._run(statements.FORGET_RECIPIENTS, user_ids=user_ids)

    def staff_for(self, events: Sequence[Event]) -> _Staff:
        """The directory, with all who may count as staff for one of the events, and whoever did one of them."""
        oldest = min([self.now, *(event.occurred_at for event in events)])
        actors = list({event.actor_id for event in events})
        since = oldest - self._settings.staff_seen_within
        return _Staff(self._rows(statements.LIST_STAFF, since=since, actor_ids=actors), self._unnoted)

    def told(self, event: Event, staff: _Staff) -> list[UUID]:
        """Who is told of the event; `staff` learns from it."""
        seen = rules.sighting(event)
        # A clock that is ahead must not make somebody staff for as long as it is.
        staff.see(seen._replace(at=min(seen.at, self.now)))
        if not rules.tells(event):
            return []
        if not rules.is_news(event, self.now, self._settings.notify_within):
            self.too_old += 1
            return []
        moment = min(event.occurred_at, self.now)
        on_duty = rules.staff_at(staff.last_seen, moment, self._settings.staff_seen_within)
        return rules.told(event, on_duty)

    def meet(self, recipients: Iterable[UUID], sightings: Mapping[UUID, Sighting]) -> None:
        """Lock the recipients and those of whom there are news, creating those who are new."""
        people = sorted({*recipients, *sightings})
        if not people:
            return
        seen = [sightings.get(user_id) for user_id in people]
        self._run(
            statements.MEET_RECIPIENTS,
            user_ids=people,
            roles=[sighting and sighting.role for sighting in seen],
            seen_at=[sighting and sighting.at for sighting in seen],
            unnoted=self._unnoted,
        )

    def wanted(self, pairs: Sequence[_Pair]) -> list[_Pair]:
        """The pairs that some channel is open for, and that were not told before."""
        if not pairs:
            return []
        people = list({pair.recipient_id for pair in pairs})
        rows = self._rows(statements.GET_MUTES, user_ids=people)
        mutes = {user_id: Mutes(frozenset(channels), frozenset(types)) for user_id, channels, types in rows}
        known = self._told_before(pairs)
        fresh = [pair for pair in pairs if (pair.recipient_id, pair.event.change_id) not in known]
        open_ = (
            pair._replace(channels=rules.channels(pair.event.type, mutes.get(pair.recipient_id, Mutes())))
            for pair in fresh
        )
        return [pair for pair in open_ if pair.channels]

    def _told_before(self, pairs: Sequence[_Pair]) -> set[tuple[UUID, UUID]]:
        return set(
            self._rows(
                statements.LIST_TOLD,
                recipient_ids=[pair.recipient_id for pair in pairs],
                change_ids=[pair.event.change_id for pair in pairs],
            )
        )

    def write(self, pairs: Sequence[_Pair]) -> Sequence[_Pair]:
        """Write the notifications with their e-mails, and hand back what was written."""
        if pairs:
            emails = self._emails(pairs)
            tellings = {pair.event.event_id: pair.event for pair in pairs}
            self._run(statements.ADD_NOTIFICATIONS, **_tellings(tellings.values()), **self._pairs(pairs, emails))
        return pairs

    def _pairs(self, pairs: Sequence[_Pair], emails: Sequence[UUID | None]) -> dict[str, object]:
        places = {event_id: place for place, event_id in enumerate(dict.fromkeys(p.event.event_id for p in pairs), 1)}
        return {
            "ids": [id_at(self.now) for _ in pairs],
            "told_by": [places[pair.event.event_id] for pair in pairs],
            "recipient_ids": [pair.recipient_id for pair in pairs],
            "in_inbox": [Channel.INBOX in pair.channels for pair in pairs],
            "email_ids": emails,
            "now": self.now,
        }

    def _emails(self, pairs: Sequence[_Pair]) -> list[UUID | None]:
        """The e-mail of each pair: one of its own, or its recipient's open digest; None where e-mail is muted."""
        ranks = [_rank(pair) for pair in pairs]
        digests = self._open_digests(
            pair.recipient_id for pair, rank in zip(pairs, ranks, strict=True) if rank is Rank.DIGEST
        )
        emails = [
            None if rank is None else digests[pair.recipient_id] if rank is Rank.DIGEST else id_at(self.now)
            for pair, rank in zip(pairs, ranks, strict=True)
        ]
        self._add_singles(
            [
                (email_id, pair.recipient_id, rank)
                for email_id, pair, rank in zip(emails, pairs, ranks, strict=True)
                if email_id is not None and rank is not None and rank is not Rank.DIGEST
            ]
        )
        return emails

    def _add_singles(self, emails: Sequence[tuple[UUID, UUID, Rank]]) -> None:
        if emails:
            ids, recipients, ranks = zip(*emails, strict=True)
            values = {"ids": list(ids), "recipient_ids": list(recipients), "ranks": list(ranks)}
            self._run(statements.ADD_SINGLE_EMAILS, **values, now=self.now)

    def _open_digests(self, recipients: Iterable[UUID]) -> dict[UUID, UUID]:
        people = sorted(set(recipients))
        if not people:
            return {}
        due_at, ids = self.now + self._settings.digest_window, [id_at(self.now) for _ in people]
        values = {"ids": ids, "recipient_ids": people, "due_at": due_at, "now": self.now}
        return dict(self._rows(statements.OPEN_DIGESTS, **values))

    def _run(self, statement: Statement, **values: object) -> None:
        self._cursor.execute(statement.sql, statement.bind(values), prepare=True, binary=True)

    def _rows(self, statement: Statement, **values: object) -> list[tuple[Any, ...]]:
        self._run(statement, **values)
        return self._cursor.fetchall()


def event_of(message: ticket_event_pb2.TicketEvent) -> Event:
    """What the rules look at of an event.

    Raises:
        ValueError: an id is no UUID, or a word is one that this version does not know.
    """
    ticket = message.ticket
    return Event(
        event_id=UUID(message.event_id),
        type=Type(_EventType.Name(message.event_type)),
        ticket_id=UUID(message.ticket_id),
        change_id=UUID(message.change_id),
        occurred_at=message.occurred_at.ToDatetime(tzinfo=UTC),
        actor_id=UUID(message.actor.user_id),
        actor_role=Role(_Role.Name(message.actor.role)),
        owner_id=UUID(ticket.user_id),
        assignee_id=UUID(ticket.assigned_to) if ticket.HasField("assigned_to") else None,
        subject=ticket.subject,
        priority=Priority(_Priority.Name(ticket.priority)),
        status=Status(_Status.Name(ticket.status)),
        to=Status(_Status.Name(message.to)) if message.HasField("to") else None,
        reason=_Reason.Name(message.reason) if message.HasField("reason") else None,
    )


def erasure_of(message: ticket_event_pb2.TicketEvent) -> Erasure:
    """What a `ticket_erased` tells; an owner who is not named, since that was told long ago, is None.

    Raises:
        ValueError: an id is no UUID.
    """
    user_id = UUID(message.erased_user_id) if message.HasField("erased_user_id") else None
    return Erasure(UUID(message.ticket_id), UUID(message.ticket.user_id), user_id)


def _as_it_happened(events: Sequence[Event]) -> list[Event]:
    """In order of time, as people read of them; but a ticket's own in the order they came, whatever their times say.

    A batch holds the topic's partitions one after the other.
    """
    latest: dict[UUID, datetime] = {}

    def moment(event: Event) -> datetime:
        latest[event.ticket_id] = max(event.occurred_at, latest.get(event.ticket_id, event.occurred_at))
        return latest[event.ticket_id]

    return [event for _, event in sorted([(moment(event), event) for event in events], key=itemgetter(0))]


def _tellings(events: Iterable[Event]) -> dict[str, object]:
    rows = list(events)
    return {
        "event_ids": [event.event_id for event in rows],
        "change_ids": [event.change_id for event in rows],
        "ticket_ids": [event.ticket_id for event in rows],
        "types": [event.type for event in rows],
        "subjects": [event.subject for event in rows],
        "priorities": [event.priority for event in rows],
        "statuses": [event.status for event in rows],
        "actor_ids": [event.actor_id for event in rows],
        "actor_roles": [event.actor_role for event in rows],
        "occurred_at": [event.occurred_at for event in rows],
    }


def _rank(pair: _Pair) -> Rank | None:
    """The rank of the pair's e-mail; None where e-mail is muted."""
    return rules.rank(pair.event, pair.recipient_id) if Channel.EMAIL in pair.channels else None


def _count(pairs: Iterable[_Pair], too_old: int) -> None:
    telemetry.EVENTS_TOO_OLD_TO_TELL.inc(too_old)
    for type_, count in Counter(pair.event.type for pair in pairs).items():
        telemetry.NOTIFICATIONS.labels(type=type_).inc(count)
