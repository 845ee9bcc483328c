"""Lives of tickets as their events tell them, made by chance, and reports over them, worked out the slow way.

The model follows the definitions of `support_metrics.proto`, from the types of the events; it knows nothing of facts.
"""

import itertools
import random
import statistics
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any, NamedTuple
from uuid import UUID

from google.protobuf.json_format import ParseDict
from nibble.support.v1 import actor_pb2, ticket_event_pb2, ticket_pb2

from server.analytics.reports import Interval, Metrics, Period, Report, Satisfaction, Statistics
from server.analytics.rules import Priority

_numbers = itertools.count()
AGENTS = [UUID(int=number) for number in range(1, 5)]
BEGIN = datetime(2026, 2, 26, 21, 0, tzinfo=UTC)
"""A Thursday evening."""

Event = ticket_event_pb2.TicketEvent
Life = list[Event]


def an_id(chance: random.Random) -> UUID:
    """A UUID by chance, unlike any other: what Hypothesis calls chance comes to the same number again and again."""
    return UUID(int=chance.getrandbits(64) << 64 | next(_numbers), version=4)


class _Ticket:
    """A ticket that things happen to, each an event or two."""

    def __init__(self, chance: random.Random, begin: datetime) -> None:
        self._chance, self._now, self.events = chance, begin, Life()
        owner = chance.choice([an_id(chance), chance.choice(AGENTS)])
        self.ticket: dict[str, Any] = {
            "id": str(an_id(chance)),
            "user_id": str(owner),
            "subject": "Cold soup",
            "status": "open",
            "priority": chance.choice(list(Priority)),
            "created_at": begin.isoformat(),
            "updated_at": begin.isoformat(),
            "version": 1,
        }
        self._tell(owner, "customer", [{"event_type": "ticket_created"}])

    @property
    def status(self) -> str:
        return str(self.ticket["status"])

    def _tell(self, actor: UUID, role: str, changes: list[dict[str, Any]]) -> None:
        change_id = str(an_id(self._chance))
        for change in changes:
            event = {
                "event_id": str(an_id(self._chance)),
                "ticket_id": self.ticket["id"],
                "sequence": len(self.events) + 1,
                "change_id": change_id,
                "occurred_at": self._now.isoformat(),
                "actor": {"user_id": str(actor), "role": role},
                "ticket": self.ticket,
                **change,
            }
            self.events.append(ParseDict(event, Event()))

    def pass_by(self) -> None:
        """Some time, or none at all; now and then the clock of another process, which is slow."""
        hours = self._chance.choice([0, 0.3, 5, 24, 100])
        self._now += timedelta(seconds=self._chance.random() * hours * 3600)
        if self._chance.random() < 0.05:
            self._now -= timedelta(milliseconds=self._chance.randrange(200))

    def assign(self) -> None:
        agent = self._chance.choice([each for each in AGENTS if str(each) != self.ticket.get("assigned_to")])
        changes = [{"event_type": "ticket_assigned", "assigned_to": str(agent), "reason": "by_supervisor"}]
        if self.status == "open":
            changes.append(self._move("in_progress"))
        self.ticket["assigned_to"] = str(agent)
        self._tell(AGENTS[0], "support_supervisor", changes)

    def comment(self) -> None:
        owner = UUID(self.ticket["user_id"])
        actor, role = self._chance.choice([(owner, "customer"), (self._chance.choice(AGENTS), "support_agent")])
        if actor == owner and actor in AGENTS:
            role = "support_agent"
        self._tell(actor, role, [{"event_type": "ticket_commented", "author_role": role}])

    def rate(self) -> None:
        told = {"event_type": "ticket_rated", "rating": self._chance.randint(1, 5)}
        if "assigned_to" in self.ticket:
            told["assigned_to"] = self.ticket["assigned_to"]
        self._tell(UUID(self.ticket["user_id"]), "customer", [told])

    def flag(self) -> None:
        self.ticket["flagged_at"] = self._now.isoformat()
        self._tell(UUID(int=0), "service", [{"event_type": "ticket_flagged", "reason": "unattended"}])

    def move(self, status: str) -> None:
        changes = [self._move(status)]
        if status in ("resolved", "closed"):
            changes.append({"event_type": f"ticket_{status}"})
        self._tell(AGENTS[1], "support_agent", changes)

    def _move(self, status: str) -> dict[str, Any]:
        change = {"event_type": "ticket_status_changed", "from": self.status, "to": status}
        if status == "resolved":
            self.ticket["resolved_at"] = self._now.isoformat()
        elif status != "closed":
            self.ticket.pop("resolved_at", None)
        self.ticket["status"] = status
        return change


_STEPS: dict[str, list[Callable[[_Ticket], None]]] = {
    "open": [
        _Ticket.assign,
        _Ticket.comment,
        _Ticket.flag,
        lambda t: t.move("in_progress"),
        lambda t: t.move("resolved"),
    ],
    "in_progress": [
        _Ticket.assign,
        _Ticket.comment,
        _Ticket.comment,
        lambda t: t.move("open"),
        lambda t: t.move("resolved"),
        lambda t: t.move("resolved"),
        lambda t: t.move("closed"),
    ],
    "resolved": [
        _Ticket.comment,
        _Ticket.rate,
        _Ticket.rate,
        lambda t: t.move("in_progress"),
        lambda t: t.move("in_progress"),
        lambda t: t.move("closed"),
    ],
    "closed": [_Ticket.rate],
}


def a_life(chance: random.Random, begin: datetime = BEGIN, days: float = 20) -> Life:
    """The events of one ticket that is created within so many days, in their order."""
    ticket = _Ticket(chance, begin + timedelta(microseconds=chance.randrange(int(days * 86400e6))))
    for _ in range(chance.randrange(16)):
        if ticket.status == "closed" and chance.random() < 0.5:
            break
        ticket.pass_by()
        chance.choice(_STEPS[ticket.status])(ticket)
    return ticket.events


# --- The model --------------------------------------------------------------------------------------------------------


class Happened(NamedTuple):
    """Something that a figure counts, and the seconds that it took where the figure is a duration."""

    figure: str
    at: datetime
    agent: str | None
    seconds: float = 0.0


class Told(NamedTuple):
    """What a life comes to: happenings, and from when on the ticket had a status, and an assignee."""

    priority: str
    happenings: list[Happened]
    statuses: list[tuple[datetime, str]]
    assignees: list[tuple[datetime, str | None]]


def told(life: Life) -> Told:
    """The life as the definitions of the figures read it."""
    created = now = life[0].occurred_at.ToDatetime(UTC)
    found, statuses = [], [(created, "open")]
    assignee: str | None = None
    assignees = [(created, assignee)]
    responded = False
    ratings: dict[int, Happened] = {}  # by how often the status had changed, but for a closing
    for event in life:
        now = max(now, event.occurred_at.ToDatetime(UTC))
        seconds = (now - created).total_seconds()
        match Event.Type.Name(event.event_type):
            case "ticket_assigned":
                assignee = event.assigned_to
                assignees.append((now, assignee))
            case "ticket_status_changed":
                before, after = (ticket_pb2.Ticket.Status.Name(number) for number in (getattr(event, "from"), event.to))
                statuses.append((now, after))
                if after in ("resolved", "closed"):
                    found.append(Happened(after, now, assignee))
                if before == "resolved" and after == "in_progress":
                    found.append(Happened("reopened", now, assignee))
                    found = [each for each in found if each.figure != "resolution_time"]
                if after == "resolved":
                    found.append(Happened("resolution_time", now, assignee, seconds))
            case "ticket_rated":
                number = sum(status != "closed" for _, status in statuses)
                ratings[number] = Happened(f"rated_{event.rating}", now, event.assigned_to or None)
            case "ticket_commented":
                author = event.actor.user_id
                staff = event.actor.role in (actor_pb2.Actor.support_agent, actor_pb2.Actor.support_supervisor)
                if staff and author != event.ticket.user_id and not responded:
                    responded = True
                    found.append(Happened("first_response_time", now, author, seconds))
    first_assignee = assignees[1][1] if len(assignees) > 1 else None
    found += [*ratings.values(), Happened("created", created, first_assignee)]
    return Told(ticket_pb2.Ticket.Priority.Name(life[0].ticket.priority), found, statuses, assignees)


def report_of(lives: Sequence[Life], start: datetime, end: datetime, interval: Interval) -> Report:
    """What GetSupportMetrics has to answer."""
    all_told = [told(life) for life in lives]
    stretches = list(pairwise(_bounds(start, end, interval)))
    agents = {agent: _metrics(all_told, start, end, agent=str(agent)) for agent in AGENTS}
    return Report(
        total=_metrics(all_told, start, end),
        periods=[Period(begin, until, _metrics(all_told, begin, until)) for begin, until in stretches],
        priorities={
            priority: _metrics([each for each in all_told if each.priority == priority], start, end)
            for priority in Priority
        },
        agents={agent: metrics for agent, metrics in agents.items() if metrics != Metrics()},
    )


def _bounds(start: datetime, end: datetime, interval: Interval) -> list[datetime]:
    bounds, now = [start], start.replace(hour=0, minute=0, second=0, microsecond=0)
    while (now := now + timedelta(days=1)) < end:
        if interval is Interval.DAY or now.isoweekday() == 1:
            bounds.append(now)
    return [*bounds, end]


def _metrics(all_told: Sequence[Told], start: datetime, end: datetime, agent: str | None = None) -> Metrics:
    def cases(figure: str) -> list[float]:
        return [
            each.seconds
            for life in all_told
            for each in life.happenings
            if each.figure == figure and start <= each.at < end and agent in (None, each.agent)
        ]

    def waits(life: Told) -> bool:
        status, assignee = _last(life.statuses, end), _last(life.assignees, end)
        return status in ("open", "in_progress") and agent in (None, assignee)

    return Metrics(
        **{figure: len(cases(figure)) for figure in ("created", "resolved", "closed", "reopened")},
        backlog=sum(map(waits, all_told)),
        first_response_time=_statistics(cases("first_response_time")),
        resolution_time=_statistics(cases("resolution_time")),
        satisfaction=Satisfaction(tuple(len(cases(f"rated_{rating}")) for rating in range(1, 6))),
    )


def _last(changes: Sequence[tuple[datetime, str | None]], end: datetime) -> str | None:
    return next((value for at, value in reversed(changes) if at < end), None)


def _statistics(cases: list[float]) -> Statistics:
    if not cases:
        return Statistics()
    p90 = statistics.quantiles(cases, n=10, method="inclusive")[8] if len(cases) > 1 else cases[0]
    return Statistics(len(cases), statistics.median(cases), p90, statistics.fmean(cases))
