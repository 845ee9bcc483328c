"""The contract's sections 3 to 5 and 7 as a model in plain dicts: what each call must come to, and what it must change.

It shares nothing with the service. What only the service can know, ids and times, is UNKNOWN until `meet` learns it.
"""

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from tests.system.doors import Caller, Json
from tests.system.topic import Topic
from tests.system.vocabulary import eventually

UNKNOWN: Final = "(not known yet)"

NOT_FOUND, ALREADY_EXISTS, PERMISSION_DENIED, FAILED_PRECONDITION, ABORTED = 5, 6, 7, 9, 10

USERS = frozenset({"customer", "restaurant", "driver"})
STAFF = frozenset({"support_agent", "support_supervisor"})
SERVICES = frozenset({"service"})
EVERYONE = USERS | STAFF | SERVICES
MAY_CALL = {
    "CreateTicket": EVERYONE,
    "ListTickets": STAFF | SERVICES,
    "ListMyTickets": EVERYONE,
    "ListAssignedTickets": STAFF,
    "GetTicket": EVERYONE,
    "UpdateTicketStatus": USERS | STAFF,
    "AssignTicket": STAFF,
    "ListTicketHistory": USERS | STAFF,
    "AddComment": USERS | STAFF,
    "ListComments": USERS | STAFF,
    "RevealTicket": {"support_supervisor"},
    "RevealComment": {"support_supervisor"},
}

STEPS = {
    "open": {"in_progress", "resolved", "closed"},
    "in_progress": {"open", "resolved", "closed"},
    "resolved": {"in_progress", "closed"},
    "closed": set(),
}
STATUSES = list(STEPS)
PRIORITIES = ["urgent", "high", "medium", "low"]
"""In the order of triage."""


class Refused(Exception):
    """The contract has this call fail: with this code, and this reason in its ErrorInfo."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason


@dataclass
class Entry:
    """One entry of a history: what it shows, the change that it belongs to, and the ticket as that change left it."""

    shown: dict[str, Any]
    change: int
    snapshot: dict[str, Any]


@dataclass
class Ticket:
    """A ticket: what GetTicket shows now, what its creation showed, its comments and its history, oldest first."""

    shown: dict[str, Any]
    created: dict[str, Any]
    comments: list[dict[str, Any]] = field(default_factory=list)
    written: dict[str, str] = field(default_factory=dict)
    """Its texts as they were written."""
    written_comments: list[str] = field(default_factory=list)
    history: list[Entry] = field(default_factory=list)

    @property
    def id(self) -> str:
        """Known once its creation has been answered."""
        return str(self.shown["id"])

    def change(self, **values: Json) -> None:
        """The ticket with these values, None for those that go, at the next version."""
        changed = {**self.shown, **values, "updated_at": UNKNOWN, "version": self.shown["version"] + 1}
        self.shown = {name: value for name, value in changed.items() if value is not None}

    def tell(self, caller: Caller, *events: dict[str, Any], is_internal: bool = False) -> None:
        """Adds one change of the history: an event, or an internal note, per dict of what it says beside the usual."""
        change = self.history[-1].change + 1 if self.history else 1
        for event in events:
            usual = {"event_id": UNKNOWN, "change_id": UNKNOWN, "occurred_at": UNKNOWN, "ticket_id": self.shown["id"]}
            number = {} if is_internal else {"sequence": len(self.public_history) + 1}
            actor = {"user_id": caller.id, "role": caller.role}
            shown = {**usual, **number, "actor": actor, "is_internal": is_internal, **event}
            self.history.append(Entry(shown, change, self.shown))

    def name_comment(self, comment_id: str) -> None:
        """Gives the entry of the newest comment its comment's id, which the answer to AddComment has told."""
        for entry in self.history:
            if entry.shown.get("comment_id") == UNKNOWN:
                entry.shown["comment_id"] = comment_id

    @property
    def public_history(self) -> list[Entry]:
        """What its owner sees, and what becomes events."""
        return [entry for entry in self.history if not entry.shown["is_internal"]]

    def history_for(self, caller: Caller) -> list[Entry]:
        """What this caller sees of it."""
        return self.history if caller.role in STAFF else self.public_history

    def comments_for(self, caller: Caller) -> list[dict[str, Any]]:
        """What this caller sees of them, newest first."""
        return [c for c in reversed(self.comments) if caller.role in STAFF or not c["is_internal"]]


def meet(expected: dict[str, Any], answer: dict[str, Any]) -> None:
    """Holds an answer against what the model expects, and learns from it what was not known yet."""
    assert answer.keys() == expected.keys(), (answer, expected)
    for name, value in expected.items():
        if value == UNKNOWN:
            expected[name] = answer[name]
        assert answer[name] == expected[name], (name, answer, expected)


def stored(text: str) -> str:
    """A text as it is stored."""
    return text.replace("\r\n", "\n").replace("\r", "\n").strip()


# The one sensitive thing that callers of the model ever write.
SECRET = re.compile(r"(?<=My PIN is )[0-9]{4}")


def masked(text: str) -> str:
    """A text as it is read."""
    return SECRET.sub("****", text)


def findings(field_name: str, text: str | None) -> list[dict[str, Any]]:
    """What is told of a text that was written so."""
    found = SECRET.finditer(text or "")
    return [{"field": field_name, "kind": "pin", "start": it.start(), "length": 4} for it in found]


@dataclass
class Model:
    """All tickets of some callers, oldest first. An act that raises Refused has changed nothing."""

    tickets: list[Ticket] = field(default_factory=list)
    keys: dict[tuple[str, str, str], tuple[object, dict[str, Any]]] = field(default_factory=dict)

    # --- Writing ------------------------------------------------------------------------------------------------------

    def create(self, caller: Caller, key: str | None = None, **fields: Json) -> dict[str, Any]:
        """What CreateTicket answers. The ticket is the last one, unless the key came before."""
        may_call(caller, "CreateTicket")
        values = {"priority": "medium", "user_id": caller.id, **fields}
        values.update({name: stored(values[name]) for name in ("subject", "description")})
        require(caller.role not in USERS or values["user_id"] == caller.id, PERMISSION_DENIED, "ACTION_NOT_ALLOWED")
        earlier = self._earlier(caller, "CreateTicket", key, values)
        if earlier is not None:
            return earlier
        times = {"id": UNKNOWN, "created_at": UNKNOWN, "updated_at": UNKNOWN}
        written = {name: values[name] for name in ("subject", "description")}
        read = {name: masked(text) for name, text in written.items()}
        told = [it for name, text in written.items() for it in findings(name, text)]
        shown = {**times, **values, **read, "status": "open", "version": 1, "sensitive_findings": told}
        ticket = Ticket(shown, created=shown, written=written)
        ticket.tell(caller, {"event_type": "ticket_created"})
        self.tickets.append(ticket)
        self._keep(caller, "CreateTicket", key, values, shown)
        return shown

    def assign(self, caller: Caller, ticket: Ticket | None, assigned_to: str, expected: int | None) -> dict[str, Any]:
        """What AssignTicket answers."""
        may_call(caller, "AssignTicket")
        ticket = in_sight(caller, ticket)
        allowed = caller.role == "support_supervisor" or assigned_to == caller.id
        require(allowed, PERMISSION_DENIED, "ACTION_NOT_ALLOWED")
        expect(ticket, expected)
        status, before = ticket.shown["status"], ticket.shown.get("assigned_to")
        require(status in ("open", "in_progress"), FAILED_PRECONDITION, "TICKET_NOT_ASSIGNABLE")
        if before != assigned_to:
            ticket.change(assigned_to=assigned_to, status="in_progress")
            ticket.tell(caller, *assignment(caller, status, before, assigned_to))
        return ticket.shown

    def move(
        self, caller: Caller, ticket: Ticket | None, status: str, notes: str | None, expected: int | None
    ) -> dict[str, Any]:
        """What UpdateTicketStatus answers."""
        may_call(caller, "UpdateTicketStatus")
        ticket = in_sight(caller, ticket)
        require(caller.role in STAFF or status == "closed", PERMISSION_DENIED, "ACTION_NOT_ALLOWED")
        expect(ticket, expected)
        before = ticket.shown["status"]
        if before != status:
            require(status in STEPS[before], FAILED_PRECONDITION, "ILLEGAL_TRANSITION")
            reason = "by_owner" if ticket.shown["user_id"] == caller.id else "by_staff"
            self._go(caller, ticket, status, reason, notes)
        return ticket.shown

    def comment(
        self, caller: Caller, ticket: Ticket | None, text: str, key: str | None = None, *, is_internal: bool
    ) -> dict[str, Any]:
        """What AddComment answers."""
        may_call(caller, "AddComment")
        ticket = in_sight(caller, ticket)
        require(caller.role in STAFF or not is_internal, PERMISSION_DENIED, "ACTION_NOT_ALLOWED")
        said: dict[str, Json] = {"ticket_id": ticket.id, "comment": stored(text), "is_internal": is_internal}
        earlier = self._earlier(caller, "AddComment", key, said)
        if earlier is not None:
            return earlier
        require(ticket.shown["status"] != "closed" or is_internal, FAILED_PRECONDITION, "TICKET_CLOSED")
        author = {"user_id": caller.id, "author_role": caller.role}
        read = {"comment": masked(said["comment"]), "sensitive_findings": findings("comment", said["comment"])}
        comment = {"id": UNKNOWN, "created_at": UNKNOWN, **said, **read, **author}
        ticket.comments.append(comment)
        ticket.written_comments.append(said["comment"])
        self._tell_of_comment(caller, ticket, is_internal=is_internal)
        self._keep(caller, "AddComment", key, said, comment)
        return comment

    def _tell_of_comment(self, caller: Caller, ticket: Ticket, *, is_internal: bool) -> None:
        event = {"event_type": "ticket_commented", "comment_id": UNKNOWN, "author_role": caller.role}
        reopens = ticket.shown["status"] == "resolved" and caller.role in USERS and not is_internal
        if not reopens:
            ticket.tell(caller, event, is_internal=is_internal)
        else:
            self._go(caller, ticket, "in_progress", "comment", None, event)

    def _go(
        self, caller: Caller, ticket: Ticket, status: str, reason: str, notes: str | None, *before: dict[str, Any]
    ) -> None:
        step = {"event_type": "ticket_status_changed", "from": ticket.shown["status"], "to": status, "reason": reason}
        beside: list[dict[str, Any]] = []
        if status == "resolved":
            # Without new notes there are none: the old ones were about an earlier solution.
            ticket.change(status=status, resolved_at=UNKNOWN, **_note(ticket, notes))
            beside = [{"event_type": "ticket_resolved", "has_resolution_notes": notes is not None}]
        elif status == "closed":
            ticket.change(status=status)
            beside = [{"event_type": "ticket_closed", "reason": reason}]
        else:
            ticket.change(status=status, resolved_at=None)
        ticket.tell(caller, *before, step, *beside)

    # --- Looking at what is masked ------------------------------------------------------------------------------------

    def reveal(self, caller: Caller, ticket: Ticket | None) -> dict[str, Any]:
        """What RevealTicket answers."""
        may_call(caller, "RevealTicket")
        ticket = in_sight(caller, ticket)
        ticket.tell(caller, {"event_type": "ticket_revealed"}, is_internal=True)
        return {**ticket.shown, **ticket.written}

    def reveal_comment(self, caller: Caller, ticket: Ticket | None, number: int | None) -> dict[str, Any]:
        """What RevealComment answers of the ticket's comment of this number; None is one that it has not."""
        may_call(caller, "RevealComment")
        ticket = in_sight(caller, ticket)
        if number is None:
            raise Refused(NOT_FOUND, "COMMENT_NOT_FOUND")
        comment = ticket.comments[number]
        ticket.tell(caller, {"event_type": "ticket_revealed", "comment_id": comment["id"]}, is_internal=True)
        return {**comment, "comment": ticket.written_comments[number]}

    # --- Idempotency keys ---------------------------------------------------------------------------------------------

    def _earlier(self, caller: Caller, call: str, key: str | None, payload: object) -> dict[str, Any] | None:
        if key is None or (caller.id, call, key) not in self.keys:
            return None
        known, result = self.keys[caller.id, call, key]
        require(known == payload, ALREADY_EXISTS, "IDEMPOTENCY_KEY_REUSED")
        return result

    def _keep(self, caller: Caller, call: str, key: str | None, payload: object, result: dict[str, Any]) -> None:
        if key is not None:
            self.keys[caller.id, call, key] = payload, result

    # --- Reading ------------------------------------------------------------------------------------------------------

    def get(self, caller: Caller, ticket: Ticket | None) -> dict[str, Any]:
        """What GetTicket answers."""
        may_call(caller, "GetTicket")
        return in_sight(caller, ticket).shown

    def comments(self, caller: Caller, ticket: Ticket | None) -> list[dict[str, Any]]:
        """Every page of ListComments."""
        may_call(caller, "ListComments")
        return in_sight(caller, ticket).comments_for(caller)

    def history(self, caller: Caller, ticket: Ticket | None) -> list[Entry]:
        """Every page of ListTicketHistory."""
        may_call(caller, "ListTicketHistory")
        return in_sight(caller, ticket).history_for(caller)

    # --- Lists --------------------------------------------------------------------------------------------------------

    def mine(self, caller: Caller, status: Collection[str]) -> list[Ticket]:
        """Every page of ListMyTickets."""
        own = [t for t in self.tickets if t.shown["user_id"] == caller.id and fits(t, status, ())]
        return own[::-1]

    def assigned(self, caller: Caller, status: Collection[str], priority: Collection[str]) -> list[Ticket]:
        """Every page of ListAssignedTickets."""
        may_call(caller, "ListAssignedTickets")
        theirs = (t for t in self.tickets if t.shown.get("assigned_to") == caller.id)
        return by_triage(t for t in theirs if fits(t, status, priority))

    def all(self, caller: Caller, status: Collection[str], priority: Collection[str], **wanted: Json) -> list[Ticket]:
        """Every page of ListTickets; None in `wanted` means that the ticket must not have that field."""
        may_call(caller, "ListTickets")
        found = (t for t in self.tickets if all(t.shown.get(name) == value for name, value in wanted.items()))
        return by_triage(t for t in found if fits(t, status, priority))


def require(holds: object, code: int, reason: str) -> None:
    """Raises Refused unless it holds."""
    if not holds:
        raise Refused(code, reason)


def _note(ticket: Ticket, notes: str | None) -> dict[str, Json]:
    """The ticket's notes from now on, and all that is told of its texts."""
    ticket.written.pop("resolution_notes", None)
    told = [it for it in ticket.shown["sensitive_findings"] if it["field"] != "resolution_notes"]
    if notes is None:
        return {"resolution_notes": None, "sensitive_findings": told}
    ticket.written["resolution_notes"] = stored(notes)
    told += findings("resolution_notes", stored(notes))
    return {"resolution_notes": masked(stored(notes)), "sensitive_findings": told}


def may_call(caller: Caller, call: str) -> None:
    """The table of section 4."""
    require(caller.role in MAY_CALL[call], PERMISSION_DENIED, "ROLE_NOT_ALLOWED")


def in_sight(caller: Caller, ticket: Ticket | None) -> Ticket:
    """The ticket, for those who may see it; None is one that there is not."""
    if ticket is None or (caller.role in USERS and ticket.shown["user_id"] != caller.id):
        raise Refused(NOT_FOUND, "TICKET_NOT_FOUND")
    return ticket


def expect(ticket: Ticket, version: int | None) -> None:
    """`expected_version`, where there is one."""
    require(version is None or version == ticket.shown["version"], ABORTED, "VERSION_MISMATCH")


def assignment(caller: Caller, status: str, before: str | None, assigned_to: str) -> list[dict[str, Any]]:
    """The events of an assignment."""
    reason = "self_assigned" if caller.id == assigned_to else "by_supervisor"
    earlier = {} if before is None else {"previous_assignee": before}
    events = [{"event_type": "ticket_assigned", "assigned_to": assigned_to, "reason": reason, **earlier}]
    if status == "open":
        step = {"event_type": "ticket_status_changed", "from": "open", "to": "in_progress", "reason": "assignment"}
        events.append(step)
    return events


def fits(ticket: Ticket, status: Collection[str], priority: Collection[str]) -> bool:
    """Whether the ticket passes the two filters; empty lets all pass."""
    return (not status or ticket.shown["status"] in status) and (not priority or ticket.shown["priority"] in priority)


def by_triage(tickets: Iterable[Ticket]) -> list[Ticket]:
    """Most urgent first, then oldest first."""
    return sorted(tickets, key=lambda ticket: PRIORITIES.index(ticket.shown["priority"]))


# --- What must be true in the end ---------------------------------------------------------------------------------


def check_times_and_ids(ticket: Ticket) -> None:
    """The history hangs together: each change has one id and one time, and the ticket's times are those of changes."""
    entries = [(entry.change, entry.shown) for entry in ticket.history]
    assert len({shown["event_id"] for _, shown in entries}) == len(entries)
    changes = {(number, shown["change_id"], shown["occurred_at"]) for number, shown in entries}
    assert len(changes) == len({number for number, _ in entries}) == len({shown["change_id"] for _, shown in entries})
    assert all(shown["ticket_id"] == ticket.id for _, shown in entries)
    assert ticket.shown["created_at"] == entries[0][1]["occurred_at"]
    steps = [shown for _, shown in entries if shown["event_type"] not in ("ticket_commented", "ticket_revealed")]
    assert ticket.shown["updated_at"] == steps[-1]["occurred_at"]
    resolutions = [shown["occurred_at"] for shown in steps if shown["event_type"] == "ticket_resolved"]
    assert ticket.shown.get("resolved_at") in (None, *resolutions[-1:])


def event_of(shown: dict[str, Any], snapshot: dict[str, Any]) -> dict[str, Any]:
    """The event that an entry of the history becomes; what of its ticket was never shown stays open."""
    private = ("description", "resolution_notes", "sensitive_findings")
    ticket = {name: value for name, value in snapshot.items() if name not in private}
    return {**{name: value for name, value in shown.items() if name != "is_internal"}, "ticket": ticket}


def check_events(topic: Topic, tickets: list[Ticket]) -> None:
    """Kafka has the public history of every ticket, and no more."""
    expected = {t.id: [event_of(entry.shown, entry.snapshot) for entry in t.public_history] for t in tickets}
    count = sum(map(len, expected.values()))

    def arrived() -> list[dict[str, Any]] | None:
        ids = {ticket_id.encode() for ticket_id in expected}
        found = [record.event for record in topic.records() if record.key in ids]
        return found if len(found) >= count else None

    events: dict[str, list[dict[str, Any]]] = {}
    for event in eventually(arrived, 30):
        events.setdefault(event["ticket_id"], []).append(event)
    assert events.keys() == expected.keys()
    for ticket_id, right in expected.items():
        assert len(events[ticket_id]) == len(right), (events[ticket_id], right)
        for wanted, event in zip(right, events[ticket_id], strict=True):
            meet(wanted["ticket"], event["ticket"])
            meet(wanted, event)
