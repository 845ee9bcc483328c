"""Every role, every call, and a ticket or inbox: own, another's or missing (contract, section 4)."""

from collections.abc import Callable, Mapping
from itertools import product
from typing import Any, NamedTuple

import pytest
from nibble.notification.v1 import notification_service_pb2
from nibble.support.v1 import agent_service_pb2, comment_service_pb2, ticket_service_pb2

from tests.system.doors import Answer, Caller, Door, Json
from tests.system.inbox import arrive, unread_of
from tests.system.staffing import empty_roster, hire
from tests.system.stage import Stage
from tests.system.vocabulary import as_agent, as_customer, as_supervisor, assign, comment, new_id, open_ticket

USERS = ("customer", "restaurant", "driver")
STAFF = ("support_agent", "support_supervisor")
ROLES = (*USERS, *STAFF, "service")

OK, HIDDEN, ROLE, ACTION = "OK", "TICKET_NOT_FOUND", "ROLE_NOT_ALLOWED", "ACTION_NOT_ALLOWED"
UNRATED, NOT_RATABLE, UNSAID = "FEEDBACK_NOT_FOUND", "TICKET_NOT_RATABLE", "COMMENT_NOT_FOUND"
CODE_OF = {OK: 0, HIDDEN: 5, ROLE: 7, ACTION: 7, UNRATED: 5, NOT_RATABLE: 9, UNSAID: 5}
WHOSE = ("own", "other's", "missing")

Fields = Callable[[Caller, str], dict[str, Json]]
Outcomes = tuple[str, str, str]
"""For the caller's own ticket, another's, and one that there is not."""

NEVER: Outcomes = (ROLE, ROLE, ROLE)
ANY_TICKET: Outcomes = (OK, OK, HIDDEN)
OWN_TICKET: Outcomes = (OK, HIDDEN, HIDDEN)


class Walk(NamedTuple):
    """One call with one kind of request, and what each role gets for it."""

    call: str
    fields: Fields
    users: Outcomes
    agent: Outcomes
    supervisor: Outcomes
    service: Outcomes

    def outcomes_for(self, role: str) -> Outcomes:
        """The row's column for that role."""
        by_role = {"support_agent": self.agent, "support_supervisor": self.supervisor, "service": self.service}
        return by_role.get(role, self.users)


def just_the_ticket(_caller: Caller, ticket: str) -> dict[str, Json]:
    """A request with nothing but the ticket's id."""
    return {"ticket_id": ticket}


def with_fields(**fields: Json) -> Fields:
    """A request with these fields beside the ticket's id."""
    return lambda _caller, ticket: {"ticket_id": ticket, **fields}


def for_oneself(caller: Caller, ticket: str) -> dict[str, Json]:
    """An assignment to the caller."""
    return {"ticket_id": ticket, "assigned_to": caller.id}


STAFF_AND_OWNER = (OWN_TICKET, ANY_TICKET, ANY_TICKET, NEVER)
STAFF_READ = (NEVER, ANY_TICKET, ANY_TICKET, NEVER)
STAFF_ALONE = ((ACTION, HIDDEN, HIDDEN), ANY_TICKET, ANY_TICKET, NEVER)
TICKET_CALLS = {
    "get": Walk("GetTicket", just_the_ticket, OWN_TICKET, ANY_TICKET, ANY_TICKET, ANY_TICKET),
    "close": Walk("UpdateTicketStatus", with_fields(status="closed"), *STAFF_AND_OWNER),
    "resolve": Walk("UpdateTicketStatus", with_fields(status="resolved"), *STAFF_ALONE),
    "take": Walk("AssignTicket", for_oneself, NEVER, ANY_TICKET, ANY_TICKET, NEVER),
    "give": Walk(
        *("AssignTicket", with_fields(assigned_to=new_id())),
        users=NEVER,
        agent=(ACTION, ACTION, HIDDEN),
        supervisor=ANY_TICKET,
        service=NEVER,
    ),
    "history": Walk("ListTicketHistory", just_the_ticket, *STAFF_AND_OWNER),
    "comment": Walk("AddComment", with_fields(comment="Any news?"), *STAFF_AND_OWNER),
    "note": Walk("AddComment", with_fields(comment="That kitchen again.", is_internal=True), *STAFF_ALONE),
    "comments": Walk("ListComments", just_the_ticket, *STAFF_AND_OWNER),
    "reveal": Walk("RevealTicket", just_the_ticket, NEVER, NEVER, ANY_TICKET, NEVER),
    "reveal a comment": Walk(
        *("RevealComment", with_fields(comment_id=new_id())),
        users=NEVER,
        agent=NEVER,
        supervisor=(UNSAID, UNSAID, HIDDEN),
        service=NEVER,
    ),
    "rate": Walk("RateTicket", with_fields(rating=4), (NOT_RATABLE, HIDDEN, HIDDEN), NEVER, NEVER, NEVER),
    "feedback": Walk(
        *("GetTicketFeedback", just_the_ticket),
        users=(UNRATED, HIDDEN, HIDDEN),
        agent=(UNRATED, UNRATED, HIDDEN),
        supervisor=(UNRATED, UNRATED, HIDDEN),
        service=NEVER,
    ),
    "order": Walk("GetTicketOrder", just_the_ticket, *STAFF_READ),
    "requester": Walk("GetTicketRequester", just_the_ticket, *STAFF_READ),
}

OWN, OTHERS, OWN_ASSIGNED, OTHERS_ASSIGNED = "own", "other's", "own, assigned", "other's, assigned"
ALL = frozenset({OWN, OTHERS, OWN_ASSIGNED, OTHERS_ASSIGNED})
ASSIGNED = frozenset({OWN_ASSIGNED, OTHERS_ASSIGNED})

# Which tickets a list shows: the caller's own and another's, each assigned to the caller or not. None: a refusal.
LISTS: dict[str, dict[str, frozenset[str] | None]] = {
    "ListTickets": {**dict.fromkeys(USERS), **dict.fromkeys([*STAFF, "service"], ALL)},
    "ListMyTickets": dict.fromkeys(ROLES, frozenset({OWN, OWN_ASSIGNED})),
    "ListAssignedTickets": {**dict.fromkeys([*USERS, "service"]), **dict.fromkeys(STAFF, ASSIGNED)},
}

# May it create a ticket for itself, and one for another?
CREATES: Mapping[str, tuple[str, str]] = {
    **dict.fromkeys(USERS, (OK, ACTION)),
    **dict.fromkeys([*STAFF, "service"], (OK, OK)),
}


# What there is to ask of an inbox, which everybody has but services. What it names is somebody else's.
INBOX_WALKS: dict[str, dict[str, Json]] = {
    "ListNotifications": {},
    "GetUnreadCount": {},
    "MarkNotificationsRead": {"notification_ids": [new_id()]},
    "StreamNotifications": {},
    "GetNotificationPreferences": {},
    "UpdateNotificationPreferences": {"muted_types": ["ticket_closed"]},
}


# What each role gets for a call of the roster about itself, and about somebody else, both of whom are on it.
ANYBODY: dict[str, tuple[str, str]] = {
    **dict.fromkeys([*USERS, "service"], (ROLE, ROLE)),
    **dict.fromkeys(STAFF, (OK, OK)),
}
SUPERVISORS_ALONE = {**ANYBODY, "support_agent": (ROLE, ROLE)}
ROSTER_WALKS: dict[str, tuple[dict[str, Json], dict[str, tuple[str, str]]]] = {
    "SetAgent": ({"display_name": "Bo"}, SUPERVISORS_ALONE),
    "GetAgent": ({}, ANYBODY),
    "ListAgents": ({}, ANYBODY),
    "SetAgentAvailability": ({"availability": "busy"}, {**ANYBODY, "support_agent": (OK, ACTION)}),
    "ReassignTickets": ({}, SUPERVISORS_ALONE),
    "ListUnattendedTickets": ({}, SUPERVISORS_ALONE),
}
NAMED_BY = {"ReassignTickets": "from_agent", "ListUnattendedTickets": "assigned_to"}


def test_every_call_and_every_role_is_walked() -> None:
    declared = {
        method.name
        for module in (ticket_service_pb2, comment_service_pb2, agent_service_pb2, notification_service_pb2)
        for service in module.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }
    walked = {walk.call for walk in TICKET_CALLS.values()} | LISTS.keys() | {"CreateTicket"} | INBOX_WALKS.keys()
    walked |= ROSTER_WALKS.keys()
    assert walked == declared
    assert all(roles.keys() == set(ROLES) for roles in (*LISTS.values(), CREATES))


@pytest.mark.parametrize(("name", "role"), list(product(TICKET_CALLS, ROLES)))
def test_a_role_gets_what_the_contract_grants_it(stage: Stage, name: str, role: str) -> None:
    walk, supervisor = TICKET_CALLS[name], as_supervisor()
    for door, (whose, outcome) in product(stage.doors, zip(WHOSE, walk.outcomes_for(role), strict=True)):
        caller = Caller(role, new_id())
        # What is not under test goes through the door that costs least: this is done eight hundred times.
        ticket = a_ticket_that_is(whose, caller, stage.own_port)
        before = None if outcome == OK else state_of(ticket, supervisor, stage.own_port)
        answer = door.call(walk.call, caller, **walk.fields(caller, ticket))
        assert_outcome(answer, outcome)
        if before is not None:
            assert state_of(ticket, supervisor, stage.own_port) == before


@pytest.mark.parametrize("role", ROLES)
def test_a_role_creates_tickets_for_whom_it_may(stage: Stage, role: str) -> None:
    for_itself, for_another = CREATES[role]
    for door in stage.doors:
        caller, another = Caller(role, new_id()), as_customer()
        texts = {"subject": "Cold soup", "description": "It was hot when it left."}
        assert_outcome(door.call("CreateTicket", caller, **texts), for_itself)
        assert_outcome(door.call("CreateTicket", caller, user_id=caller.id, **texts), for_itself)
        assert_outcome(door.call("CreateTicket", caller, user_id=another.id, **texts), for_another)
        assert len(owned_by(another, stage.rest)) == (for_another == OK)


@pytest.mark.parametrize(("call", "role"), list(product(LISTS, ROLES)))
def test_a_list_shows_a_role_what_it_may_see(stage: Stage, call: str, role: str) -> None:
    for door in stage.doors:
        caller, another, supervisor = Caller(role, new_id()), as_customer(), as_supervisor()
        tickets: dict[str, str] = {}
        for owner, names in ((caller, (OWN, OWN_ASSIGNED)), (another, (OTHERS, OTHERS_ASSIGNED))):
            left, taken = open_ticket(stage.own_port, owner), open_ticket(stage.own_port, owner)
            assign(stage.own_port, supervisor, taken, to=caller)
            tickets |= {left["id"]: names[0], taken["id"]: names[1]}
        shown = LISTS[call][role]
        if shown is None:
            assert_outcome(door.call(call, caller), ROLE)
        else:
            assert {tickets[ticket] for ticket in listed(door, call, caller, tickets)} == shown


@pytest.mark.parametrize(("call", "role"), list(product(INBOX_WALKS, ROLES)))
def test_everybody_but_services_has_an_inbox_of_their_own(stage: Stage, call: str, role: str) -> None:
    for door in stage.doors:
        caller, another = Caller(role, new_id()), as_customer()
        (theirs,) = arrive(stage, another)
        fields = INBOX_WALKS[call] | ({"notification_ids": [theirs]} if call == "MarkNotificationsRead" else {})
        answer = door.call(call, caller, **fields)
        assert_outcome(answer, ROLE if role == "service" else OK)
        assert theirs not in str(answer)
        assert unread_of(stage, another) == 1
        untouched: dict[str, Json] = {"muted_channels": [], "muted_types": []}
        assert door.call("GetNotificationPreferences", another).resource == untouched


@pytest.mark.parametrize("role", [*USERS, *STAFF])
def test_only_staff_are_told_of_internal_notes(stage: Stage, role: str) -> None:
    caller = Caller(role, new_id())
    ticket = open_ticket(stage.rest, caller)
    note = comment(stage.rest, as_agent(), ticket, is_internal=True)
    for door in stage.doors:
        comments = door.call("ListComments", caller, ticket_id=ticket["id"]).resource["comments"]
        history = door.call("ListTicketHistory", caller, ticket_id=ticket["id"]).resource["entries"]
        seen = {entry["id"] for entry in comments} | {entry.get("comment_id") for entry in history}
        assert (note["id"] in seen) == (role in STAFF)


@pytest.mark.parametrize(("call", "role"), list(product(ROSTER_WALKS, ROLES)))
def test_a_role_does_with_the_roster_what_it_may(stage: Stage, call: str, role: str) -> None:
    fields, outcomes = ROSTER_WALKS[call]
    for door in stage.doors:
        caller, another = Caller(role, new_id()), as_agent()
        for staff, outcome in zip((caller, another), outcomes[role], strict=True):
            before = hire(stage.rest, Caller("support_agent", staff.id))
            named = {} if call == "ListAgents" else {NAMED_BY.get(call, "agent_id"): staff.id}
            assert_outcome(door.call(call, caller, **named, **fields), outcome)
            after = door.call("GetAgent", as_supervisor(), agent_id=staff.id).resource
            assert (after != before) is (outcome == OK and call.startswith("Set"))
    empty_roster(stage)


def a_ticket_that_is(whose: str, caller: Caller, door: Door) -> str:
    """The id of a new open ticket, or of none."""
    if whose == "missing":
        return new_id()
    return str(open_ticket(door, caller if whose == "own" else as_customer())["id"])


def state_of(ticket: str, supervisor: Caller, door: Door) -> list[Answer]:
    """All that a supervisor sees of a ticket."""
    return [
        door.call(call, supervisor, ticket_id=ticket) for call in ("GetTicket", "ListTicketHistory", "ListComments")
    ]


def assert_outcome(answer: Answer, outcome: str) -> None:
    """The call came to just that."""
    assert (answer.code, answer.reason or OK) == (CODE_OF[outcome], outcome), answer


def owned_by(user: Caller, door: Door) -> list[dict[str, Any]]:
    """The user's tickets."""
    tickets: list[dict[str, Any]] = door.call("ListMyTickets", user).resource["tickets"]
    return tickets


def listed(door: Door, call: str, caller: Caller, among: Mapping[str, str]) -> set[str]:
    """Which of those tickets the list has, on whichever page."""
    found: set[str] = set()
    token = ""
    # The oldest of their rank come first, and other tests have tickets too: only those since are of interest.
    since = {"created_after": created_at(min(among), door)} if call == "ListTickets" else {}
    while True:
        page = door.call(call, caller, page_size=100, page_token=token, **since).resource
        found |= {ticket["id"] for ticket in page["tickets"]} & among.keys()
        token = page["next_page_token"]
        if not token:
            return found


def created_at(ticket: str, door: Door) -> str:
    """When the ticket was created."""
    return str(door.call("GetTicket", as_supervisor(), ticket_id=ticket).resource["created_at"])
