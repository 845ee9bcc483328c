"""Invents what happened to a ticket, by chance, as rows for COPY.

Tickets are as those of a platform that has had support for three years. Few users have thousands of tickets, most have
one. Nine of ten are done with within two days, the others take up to a year and a half, so that some 2 % are open.
Three of four are closed without more ado, the others are given to somebody first; most get no comment, a few get
hundreds. A history has four to five entries on average: real ones have twice as many, for which a small machine's disk
has no room.
"""

from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache

from bench import rows
from bench.binary_copy import NULL, jsonb
from bench.rows import TABLES, Said
from bench.world import Person, World, spelled
from server.domain.callers import ITSELF
from server.domain.events import Reason
from server.domain.tickets import Priority, Status

SECOND = 1_000_000
MINUTE, HOUR, DAY = 60 * SECOND, 3_600 * SECOND, 86_400 * SECOND
"""In microseconds, as all times here; moments are counted from 1970."""

SPAN = 3 * 365 * DAY
SHORTEST_LIFE, USUAL_LIFE, LONG_LIFE, LONG_LIVED = 10 * MINUTE, 2 * DAY, 600 * DAY, 0.1
QUIET, KEY_LIFE, ORDER_ASKED = 3 * DAY, 7 * DAY, 2 * SECOND

# Cumulated shares. Stories: closed as it is, given to somebody and closed; the others are resolved, and closed when
# nobody objects. Comments: none, one, two, three; the others have a few more.
CLOSED_AT_ONCE, CLOSED_BY_AGENT = 0.75, 0.92
COMMENTS, MORE_COMMENTS = (0.65, 0.85, 0.95, 0.99), 8
PRIORITIES = ((0.03, Priority.URGENT), (0.15, Priority.HIGH), (0.75, Priority.MEDIUM), (1.0, Priority.LOW))
# Shares.
WITH_ORDER, UNKNOWN_ORDER, RATED, KEYED, BY_STAFF, INTERNAL, WITH_NOTES = 0.25, 0.02, 0.35, 0.5, 0.5, 0.12, 0.5
CHATTY_EVERY, CHATTY = 2_500, (100, 600)
# As settings.py has them by default.
PATIENCE = {Priority.URGENT: 15 * MINUTE, Priority.HIGH: HOUR, Priority.MEDIUM: 4 * HOUR, Priority.LOW: DAY}

_ITSELF = Person.of(ITSELF.id.bytes, ITSELF.role)
_STARTED = rows.moved(Status.OPEN, Status.IN_PROGRESS, Reason.ASSIGNMENT)
_RESOLVED = rows.moved(Status.IN_PROGRESS, Status.RESOLVED, Reason.BY_STAFF)
_WITH_NOTES, _WITHOUT_NOTES = rows.resolved(with_notes=True), rows.resolved(with_notes=False)


def _closed(before: Status, reason: Reason) -> tuple[Said, Said]:
    return rows.moved(before, Status.CLOSED, reason), rows.closed(reason)


_CLOSED_BY_OWNER, _CLOSED_BY_STAFF = _closed(Status.OPEN, Reason.BY_OWNER), _closed(Status.OPEN, Reason.BY_STAFF)
_CLOSED_AS_DONE, _CLOSED_AS_QUIET = _closed(Status.IN_PROGRESS, Reason.BY_STAFF), _closed(Status.RESOLVED, Reason.AUTO)

Step = tuple[int, Callable[[int], None]]
"""Something that happens to a ticket, and when."""


class Shelf:
    """Rows of each table by the period in which they are written, counted from the beginning of all."""

    def __init__(self, begin: int, width: int) -> None:
        self._begin, self._width = begin, width
        self.rows: dict[str, dict[int, list[bytes]]] = {table: defaultdict(list) for table in TABLES}

    def put(self, table: str, at: int, row: bytes) -> None:
        """A row that is written at that time."""
        self.rows[table][(at - self._begin) // self._width].append(row)


class Life:
    """A ticket from its creation to its end, or to `now`."""

    __slots__ = (
        "agent", "assigned_to", "beginning", "created", "end", "events", "flagged_at", "history", "id", "notes", "now",
        "order", "owner", "place", "priority", "quiet_since", "resolved_at", "shelf", "snapshot", "status", "subject",
        "unattended_since", "updated_at", "version", "world",
    )  # fmt: skip

    def __init__(self, world: World, shelf: Shelf, place: int, created: int, now: int) -> None:
        """`place`: its number among all tickets."""
        self.world, self.shelf, self.place, self.created, self.now = world, shelf, place, created, now
        self.id = world.new_id(created)
        # Whoever of the staff has to do with it, if anybody.
        self.owner, self.agent = world.user(), world.one_of(world.agents)
        self.order = world.some_id() if world.random() < WITH_ORDER else None
        subject, self.subject = world.one_of(world.subjects)
        self.priority = _priority(world.random())
        self.beginning = _beginning(self, subject)
        self.end = created + SHORTEST_LIFE + int(_longest(world.random()) * world.random())
        self.status = Status.OPEN
        self.assigned_to: Person | None = None
        self.resolved_at = self.flagged_at = self.quiet_since = 0
        self.notes = NULL
        self.updated_at = self.unattended_since = created
        self.version = self.events = self.history = 0
        self.snapshot = b""

    def live(self) -> None:
        """Put all its rows onto the shelf."""
        last = self.created
        self._change(last, self.owner, rows.CREATED)
        for at, step in self._story():
            if at > self.now:
                self._flag_if_left_alone(last)
                break
            step(at)
            last = at
        self._write()

    def _story(self) -> list[Step]:
        """What happens to it, in order."""
        steps = self._ending(self.world.random())
        comments = self._talkativeness()
        if comments:
            talk = self.end - self.created
            steps += [(self.created + int(talk * self.world.random()), self._comment) for _ in range(comments)]
            steps.sort(key=_when)
        return steps

    def _ending(self, chance: float) -> list[Step]:
        if chance < CLOSED_AT_ONCE:
            return [(self.end, self._close)]
        given = (self.created + (self.end - self.created) // 10, self._assign)
        if chance < CLOSED_BY_AGENT:
            return [given, (self.end, self._close)]
        rest = [(self.end, self._resolve), (self.end + QUIET // 2, self._rate), (self.end + QUIET, self._close)]
        return [given, *rest]

    def _talkativeness(self) -> int:
        if self.place % CHATTY_EVERY == CHATTY_EVERY // 2:
            return self.world.chance.randint(*CHATTY)
        chance = self.world.random()
        for comments, share in enumerate(COMMENTS):
            if chance < share:
                return comments
        return len(COMMENTS) + int(MORE_COMMENTS * self.world.random())

    # --- What happens to it -------------------------------------------------------------------------------------------

    def _assign(self, at: int) -> None:
        by_itself = self.world.random() < BY_STAFF
        actor = self.agent if by_itself else self.world.one_of(self.world.supervisors)
        reason = Reason.SELF_ASSIGNED if by_itself else Reason.BY_SUPERVISOR
        self.assigned_to, self.status, self.unattended_since = self.agent, Status.IN_PROGRESS, at
        self._change(at, actor, rows.assigned(self.agent, reason), _STARTED)

    def _resolve(self, at: int) -> None:
        with_notes = self.world.random() < WITH_NOTES
        if with_notes:
            self.notes = self.world.one_of(self.world.notes)
        self.status = Status.RESOLVED
        self.resolved_at = self.quiet_since = self.unattended_since = at
        self._change(at, self.agent, _RESOLVED, _WITH_NOTES if with_notes else _WITHOUT_NOTES)

    def _close(self, at: int) -> None:
        actor, said = self._closing()
        if self.status is not Status.RESOLVED:
            self.unattended_since = at
        self.status, self.quiet_since = Status.CLOSED, 0
        self._change(at, actor, *said)

    def _closing(self) -> tuple[Person, tuple[Said, Said]]:
        """Who closes it, and what that says."""
        if self.status is Status.RESOLVED:
            return _ITSELF, _CLOSED_AS_QUIET
        if self.status is Status.IN_PROGRESS:
            return self.agent, _CLOSED_AS_DONE
        if self.world.random() < BY_STAFF:
            return self.agent, _CLOSED_BY_STAFF
        return self.owner, _CLOSED_BY_OWNER

    def _comment(self, at: int) -> None:
        chance = self.world.random()
        author, internal = self.agent if chance < BY_STAFF else self.owner, chance < INTERNAL
        if author.is_staff:
            self.unattended_since = at
        comment, said = self.world.new_id(at), self.world.one_of(self.world.comments)
        row = rows.comment(comment, self.id, author, said, at, is_internal=internal)
        self.shelf.put("ticket_comments", at, row)
        if internal:
            self._note(at, author, rows.commented(comment, author))
        else:
            self._tell(at, author, rows.commented(comment, author), self.world.new_id(at))

    def _rate(self, at: int) -> None:
        if self.world.random() < RATED:
            rating = 1 + int(5 * self.world.random())
            self.shelf.put("ticket_feedback", at, rows.feedback(self.id, rating, self.agent, at))
            self._tell(at, self.owner, rows.rated(rating, self.agent), self.world.new_id(at))

    def _flag_if_left_alone(self, last: int) -> None:
        """As the sweeper has done with all that still wait; what was flagged on the way is left out."""
        due = self.unattended_since + PATIENCE[self.priority]
        if self.status is not Status.RESOLVED and due <= self.now:
            self.flagged_at = max(due, last)
            self.snapshot = self._as_json()
            self._tell(self.flagged_at, _ITSELF, rows.FLAGGED, self.world.new_id(self.flagged_at))

    # --- Its rows -----------------------------------------------------------------------------------------------------

    def _change(self, at: int, actor: Person, *said: Said) -> None:
        """A step to the next version, and its events."""
        self.updated_at = at
        self.version += 1
        self.snapshot = self._as_json()
        change = self.world.new_id(at)
        for each in said:
            self._tell(at, actor, each, change)

    def _as_json(self) -> bytes:
        """The snapshot that its events carry."""
        return jsonb(
            f'{self.beginning}"status":"{self.status}","assigned_to":{_name(self.assigned_to)}'
            f',"resolved_at":{_time(self.resolved_at)},"updated_at":{_time(self.updated_at)}'
            f',"version":{self.version},"flagged_at":{_time(self.flagged_at)}}}'
        )

    def _tell(self, at: int, actor: Person, said: Said, change: bytes) -> None:
        self.history += 1
        self.events += 1
        id_, numbers = self.world.new_id(at), (self.history, self.events)
        self.shelf.put("ticket_events", at, rows.event(id_, self.id, numbers, change, at, actor, said, self.snapshot))

    def _note(self, at: int, actor: Person, said: Said) -> None:
        self.history += 1
        id_, change = self.world.new_id(at), self.world.new_id(at)
        row = rows.internal_entry(id_, self.id, self.history, change, at, actor, said)
        self.shelf.put("ticket_events", at, row)

    def _write(self) -> None:
        """The ticket as it is now, and what was written with it when it was created."""
        self.shelf.put("support_tickets", self.created, rows.ticket(self._ticket()))
        if self.order is not None:
            self.shelf.put("ticket_orders", self.created, self._order(self.order))
        if self.created > self.now - KEY_LIFE and self.world.random() < KEYED:
            row = rows.key_of_creation(self.owner, self.world.some_id().hex(), self.id, self.created)
            self.shelf.put("idempotency_keys", self.created, row)

    def _ticket(self) -> rows.Ticket:
        return rows.Ticket(
            self.id, self.owner, self.order, self.subject, self.world.one_of(self.world.descriptions), self.status,
            self.priority, self.assigned_to, self.resolved_at, self.notes, self.created, self.updated_at, self.version,
            self.events, self.history, self.unattended_since, self.flagged_at, self.quiet_since,
        )  # fmt: skip

    def _order(self, order: bytes) -> bytes:
        asked = self.created + ORDER_ASKED
        if asked > self.now:
            return rows.pending_order(self.id, order, self.created)
        if self.world.random() < UNKNOWN_ORDER:
            return rows.unknown_order(self.id, order, self.created, asked)
        placed, told = _time(self.created - HOUR), self.world.one_of(self.world.orders)
        snapshot = f'{{"id":"{spelled(order)}","customer_id":"{self.owner.name}","placed_at":{placed},{told}'
        return rows.known_order(self.id, order, snapshot, self.created, asked)


def _when(step: Step) -> int:
    return step[0]


def _longest(chance: float) -> int:
    return LONG_LIFE if chance < LONG_LIVED else USUAL_LIFE


def _priority(chance: float) -> Priority:
    return next(priority for share, priority in PRIORITIES if chance < share)


def _beginning(it: Life, subject: str) -> str:
    """What never changes of the snapshots of a ticket."""
    order = "null" if it.order is None else f'"{spelled(it.order)}"'
    return (
        f'{{"id":"{spelled(it.id)}","user_id":"{it.owner.name}","order_id":{order},"subject":"{subject}"'
        f',"priority":"{it.priority}","created_at":{_time(it.created)},'
    )


def _name(person: Person | None) -> str:
    return "null" if person is None else f'"{person.name}"'


# What datetime spells takes four times as long.
_CLOCK = [f"{hour:02}:{minute:02}:{second:02}" for hour in range(24) for minute in range(60) for second in range(60)]


def _time(at: int) -> str:
    if not at:
        return "null"
    day, time = divmod(at, DAY)
    return f'"{_date(day)}T{_CLOCK[time // SECOND]}.{time % SECOND:06}+00:00"'


@lru_cache(2_000)
def _date(day: int) -> str:
    return datetime.fromtimestamp(day * DAY / SECOND, UTC).date().isoformat()
