"""Rows to messages. The words are the same on both sides, so there is nothing to translate but types."""

from collections.abc import Callable, Collection
from datetime import UTC, datetime, timedelta
from uuid import UUID

from google.protobuf import timestamp_pb2
from nibble.support.v1 import (
    actor_pb2,
    agent_pb2,
    comment_pb2,
    feedback_pb2,
    history_pb2,
    sensitive_finding_pb2,
    ticket_event_pb2,
    ticket_pb2,
)

from server.domain.events import HistoryEntry
from server.domain.feedback import Feedback, changeable_until
from server.domain.roster import Agent
from server.domain.tickets import Comment, Findings, Ticket

STATUS = dict(ticket_pb2.Ticket.Status.items())
PRIORITY = dict(ticket_pb2.Ticket.Priority.items())
ROLE = dict(actor_pb2.Actor.Role.items())
EVENT_TYPE = dict(ticket_event_pb2.TicketEvent.Type.items())
AVAILABILITY = dict(agent_pb2.Agent.Availability.items())
REASON = dict(ticket_event_pb2.TicketEvent.Reason.items())

_STATUS_WORD: dict[int, str] = {number: word for word, number in STATUS.items() if number}
_PRIORITY_WORD: dict[int, str] = {number: word for word, number in PRIORITY.items() if number}
_ROLE_WORD: dict[int, str] = {number: word for word, number in ROLE.items() if number}
_AVAILABILITY_WORD: dict[int, str] = {number: word for word, number in AVAILABILITY.items() if number}


def role_word(number: int) -> str | None:
    """The role by its number in the proto; None for unspecified and for a number that has no name."""
    return _ROLE_WORD.get(number)


def availability_word(number: int) -> str | None:
    """The availability by its number in the proto; None for unspecified and for a number that has no name."""
    return _AVAILABILITY_WORD.get(number)


def availability_words(numbers: Collection[int]) -> set[str | None]:
    """The availabilities of a filter, each once."""
    return {availability_word(number) for number in set(numbers)}


def status_word(number: int) -> str | None:
    """The status by its number in the proto; None for unspecified and for a number that has no name."""
    return _STATUS_WORD.get(number)


def priority_word(number: int) -> str | None:
    """The priority by its number in the proto; None for unspecified and for a number that has no name."""
    return _PRIORITY_WORD.get(number)


def status_words(numbers: Collection[int]) -> set[str | None]:
    """The statuses of a filter, each once: a request has room for a million values, and there are but a few words."""
    return {status_word(number) for number in set(numbers)}


def priority_words(numbers: Collection[int]) -> set[str | None]:
    """The priorities of a filter, each once."""
    return {priority_word(number) for number in set(numbers)}


def moment(time: timestamp_pb2.Timestamp) -> tuple[int, int]:
    """A timestamp as its two numbers."""
    return time.seconds, time.nanos


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _fill(message: timestamp_pb2.Timestamp, time: datetime) -> None:
    """The time as protobuf has it. A message takes a datetime too, but four times as long for it."""
    since = time - _EPOCH
    message.seconds = since.days * 86_400 + since.seconds
    message.nanos = since.microseconds * 1_000


def _timestamp(time: datetime) -> timestamp_pb2.Timestamp:
    message = timestamp_pb2.Timestamp()
    _fill(message, time)
    return message


def _timestamp_if_any(time: datetime | None) -> timestamp_pb2.Timestamp | None:
    return None if time is None else _timestamp(time)


def _optional(value: UUID | None) -> str | None:
    return None if value is None else str(value)


# Of tickets and comments a page has many. Setting what is there takes half the time of naming what is not, and what is
# filled in its place less than what is made first and copied.
def ticket_message(ticket: Ticket, make: Callable[..., ticket_pb2.Ticket] = ticket_pb2.Ticket) -> ticket_pb2.Ticket:
    """The resource of contract section 3, made by `make`; an absent optional stays absent."""
    message = make(
        id=str(ticket.id),
        user_id=str(ticket.user_id),
        subject=ticket.subject,
        description=ticket.description,
        status=STATUS[ticket.status],
        priority=PRIORITY[ticket.priority],
        version=ticket.version,
    )
    _fill(message.created_at, ticket.created_at)
    _fill(message.updated_at, ticket.updated_at)
    if ticket.order_id is not None:
        message.order_id = str(ticket.order_id)
    if ticket.assigned_to is not None:
        message.assigned_to = str(ticket.assigned_to)
    if ticket.resolved_at is not None:
        _fill(message.resolved_at, ticket.resolved_at)
    if ticket.resolution_notes is not None:
        message.resolution_notes = ticket.resolution_notes
    if ticket.flagged_at is not None:
        _fill(message.flagged_at, ticket.flagged_at)
    if ticket.findings is not None:
        message.sensitive_findings.extend(_findings(ticket.findings))
    return message


def comment_message(
    comment: Comment, make: Callable[..., comment_pb2.TicketComment] = comment_pb2.TicketComment
) -> comment_pb2.TicketComment:
    """The comment of contract section 3, made by `make`."""
    message = make(
        id=str(comment.id),
        ticket_id=str(comment.ticket_id),
        user_id=str(comment.user_id),
        comment=comment.comment,
        is_internal=comment.is_internal,
        author_role=ROLE[comment.author_role],
    )
    _fill(message.created_at, comment.created_at)
    if comment.findings is not None:
        message.sensitive_findings.extend(_findings(comment.findings))
    return message


def feedback_message(feedback: Feedback, changeable_for: timedelta) -> feedback_pb2.TicketFeedback:
    """The feedback, and until when it can be changed."""
    return feedback_pb2.TicketFeedback(
        ticket_id=str(feedback.ticket_id),
        rating=feedback.rating,
        remark=feedback.remark,
        resolved_by=_optional(feedback.resolved_by),
        rated_at=_timestamp(feedback.rated_at),
        updated_at=_timestamp(feedback.updated_at),
        changeable_until=_timestamp(changeable_until(feedback, changeable_for)),
        sensitive_findings=_findings(feedback.findings),
    )


def _findings(findings: Findings) -> list[sensitive_finding_pb2.SensitiveFinding]:
    return [sensitive_finding_pb2.SensitiveFinding(**found) for found in findings or ()]


def agent_message(agent: Agent) -> agent_pb2.Agent:
    """An entry of the roster, with the availability that it has been given for the moment."""
    return agent_pb2.Agent(
        id=str(agent.id),
        display_name=agent.display_name,
        role=ROLE[agent.role],
        tier=agent.tier,
        capacity=agent.capacity,
        active=agent.active,
        availability=AVAILABILITY[agent.availability],
        away_until=_timestamp_if_any(agent.away_until),
        availability_since=_timestamp(agent.availability_since),
        open_tickets=agent.open_tickets,
        created_at=_timestamp(agent.created_at),
        updated_at=_timestamp(agent.updated_at),
    )


def history_message(entry: HistoryEntry) -> history_pb2.HistoryEntry:
    """One change, in the events' words; what its type does not add stays absent."""
    message = history_pb2.HistoryEntry(
        event_id=str(entry.id),
        event_type=EVENT_TYPE[entry.event_type],
        ticket_id=str(entry.ticket_id),
        sequence=entry.sequence,
        change_id=str(entry.change_id),
        occurred_at=_timestamp(entry.occurred_at),
        actor=actor_pb2.Actor(user_id=str(entry.actor_id), role=ROLE[entry.actor_role]),
        is_internal=entry.is_internal,
        to=None if entry.to_status is None else STATUS[entry.to_status],
        assigned_to=_optional(entry.assigned_to),
        previous_assignee=_optional(entry.previous_assignee),
        reason=None if entry.reason is None else REASON[entry.reason],
        comment_id=_optional(entry.comment_id),
        author_role=None if entry.author_role is None else ROLE[entry.author_role],
        has_resolution_notes=entry.has_resolution_notes,
        rating=entry.rating,
    )
    if entry.from_status is not None:
        setattr(message, "from", STATUS[entry.from_status])  # `from` can't be written as an attribute
    return message
