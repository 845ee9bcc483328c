"""Tickets as the support service tells of them: its own rules decide, its own messages carry the events."""

import random
from datetime import datetime, timedelta
from uuid import UUID, uuid4

from google.protobuf.json_format import Parse
from nibble.support.v1.ticket_event_pb2 import TicketEvent

from server.domain import lifecycle
from server.domain.callers import Caller, Role
from server.domain.events import EventDraft, EventType, HistoryEntry
from server.domain.lifecycle import Change
from server.domain.privacy import ERASED, erased
from server.domain.tickets import Priority, Status, Ticket
from server.workers.event_message import event_message

STEP = timedelta(seconds=1)


def customer() -> Caller:
    """A customer whom nobody knows."""
    return Caller(uuid4(), Role.CUSTOMER)


def agent() -> Caller:
    """An agent whom nobody knows."""
    return Caller(uuid4(), Role.SUPPORT_AGENT)


def supervisor() -> Caller:
    """A supervisor whom nobody knows."""
    return Caller(uuid4(), Role.SUPPORT_SUPERVISOR)


class TicketStory:
    """One ticket from its creation on; each act appends its events to `events` and takes a second."""

    def __init__(
        self,
        owner: Caller,
        now: datetime,
        *,
        by: Caller | None = None,
        subject: str = "Cold soup",
        priority: Priority = Priority.MEDIUM,
    ) -> None:
        self.now = now
        self.events: list[TicketEvent] = []
        self._ticket = Ticket(
            uuid4(), owner.id, None, subject, "", Status.OPEN, priority, None, None, None, now, now, version=1
        )
        self._tell(by or owner, (EventDraft(EventType.TICKET_CREATED),))

    @property
    def id(self) -> UUID:
        """The ticket's id."""
        return self._ticket.id

    @property
    def status(self) -> Status:
        """Where the ticket stands."""
        return Status(self._ticket.status)

    @property
    def assignee(self) -> UUID | None:
        """Who works on it."""
        return self._ticket.assigned_to

    def assign(self, by: Caller, to: Caller | None = None) -> "TicketStory":
        """The ticket is given to somebody, or taken over."""
        return self._change(by, lifecycle.assign(self._ticket, (to or by).id, lifecycle.assigned_by(by, (to or by).id)))

    def move(self, by: Caller, status: Status) -> "TicketStory":
        """The ticket's status changes."""
        return self._change(by, lifecycle.change_status(self._ticket, status, None, by, self.now))

    def comment(self, by: Caller) -> "TicketStory":
        """Somebody comments in public."""
        change = lifecycle.comment(self._ticket, by, is_internal=False, reopens=True, now=self.now)
        told = EventDraft(EventType.TICKET_COMMENTED, comment_id=uuid4(), author_role=by.role)
        return self._change(by, change, told)

    def happen(self, by: Caller, draft: EventDraft) -> "TicketStory":
        """Something that changes nothing in the ticket itself."""
        return self._change(by, None, draft)

    def erase(self, by: Caller) -> "TicketStory":
        """The owner's data is erased."""
        self.now += STEP
        owner, pseudonym = self._ticket.user_id, uuid4()
        self._ticket = self._ticket._replace(
            user_id=pseudonym, subject=ERASED, order_id=None, updated_at=self.now, version=self._ticket.version + 1
        )
        self._tell(by, (erased(owner),))
        return self

    def live(self, chance: random.Random, owner: Caller, staff: list[Caller]) -> "TicketStory":
        """One act that the rules allow, by chance."""
        worker = chance.choice(staff)
        acts = [lambda: self.move(worker, chance.choice(sorted(lifecycle.TRANSITIONS[self.status])))]
        if self.status in lifecycle.ASSIGNABLE:
            acts.append(lambda: self.assign(worker))
        acts.append(lambda: self.comment(chance.choice([owner, worker])))
        if self.status is not Status.CLOSED:
            chance.choice(acts)()
        return self

    def _change(self, by: Caller, change: Change | None, *first: EventDraft) -> "TicketStory":
        self.now += STEP
        if change is not None:
            fields = change._asdict()
            del fields["events"]
            self._ticket = self._ticket._replace(**fields, updated_at=self.now, version=self._ticket.version + 1)
        self._tell(by, (*first, *(change.events if change else ())))
        return self

    def _tell(self, by: Caller, drafts: tuple[EventDraft, ...]) -> None:
        change_id = uuid4()
        for draft in drafts:
            number = len(self.events) + 1
            entry = HistoryEntry(
                id=uuid4(),
                ticket_id=self.id,
                position=number,
                sequence=number,
                change_id=change_id,
                occurred_at=self.now,
                actor_id=by.id,
                actor_role=by.role,
                is_internal=False,
                **draft._asdict(),
            )
            self.events.append(Parse(event_message(entry, self._snapshot()).value, TicketEvent()))

    def _snapshot(self) -> dict[str, object]:
        fields = self._ticket._asdict()
        del fields["description"], fields["resolution_notes"], fields["findings"]
        return {name: _json(value) for name, value in fields.items()}


def _json(value: object) -> object:
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value) if isinstance(value, UUID) else value
