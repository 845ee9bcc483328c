"""Every call through REST and through gRPC: the same tickets, comments and errors, whatever the door."""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from devstack.identity import AUDIENCE, ISSUER
from tests.system.doors import CALLS, EVERY_CALL, Answer, Caller, Door, Json
from tests.system.staffing import empty_roster, hire
from tests.system.stage import Stage
from tests.system.vocabulary import (
    as_agent,
    as_customer,
    as_service,
    as_supervisor,
    assign,
    comment,
    move,
    new_id,
    open_ticket,
)

INVALID_ARGUMENT, NOT_FOUND, ALREADY_EXISTS, PERMISSION_DENIED = 3, 5, 6, 7
FAILED_PRECONDITION, ABORTED, UNAUTHENTICATED = 9, 10, 16

# Whom the User Service calls the same in every life.
SOMEBODY = "01920000-0000-7000-8000-0000000012ab"
UUID_OR_TIME = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|\d{4}-\d\d-\d\dT[\d:.]+Z")


# --- What succeeds ----------------------------------------------------------------------------------------------------


class Story:
    """A life of a ticket as told through one door: every answer, in order."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self.told: list[tuple[str, Answer]] = []

    def tell(self, call: str, caller: Caller, **fields: Json) -> dict[str, Any]:
        answer = self._door.call(call, caller, **fields)
        self.told.append((call, answer))
        return answer.resource


def play(story: Story) -> None:
    """Takes every call of the contract at least once."""
    owner, agent, boss, app = as_customer(), as_agent(), as_supervisor(), as_service()
    texts = {"subject": " Cold soup ", "description": "It was hot\r\nwhen it left. 🍲", "order_id": new_id()}
    ticket = story.tell("CreateTicket", owner, **texts, priority="urgent")["id"]
    story.tell("CreateTicket", app, subject="For a user", description="d", user_id=owner.id)
    somebodys = story.tell("CreateTicket", app, subject="For somebody", description="d", user_id=SOMEBODY)["id"]
    for caller in (agent, boss):
        story.tell("GetTicketOrder", caller, ticket_id=ticket)
        story.tell("GetTicketOrder", caller, ticket_id=somebodys)
        story.tell("GetTicketRequester", caller, ticket_id=somebodys)
    story.tell("CreateTicket", owner, subject="Plain", description="d")
    story.tell("GetTicket", owner, ticket_id=ticket.upper())
    story.tell("AssignTicket", boss, ticket_id=ticket, assigned_to=agent.id, expected_version=1)
    story.tell("AssignTicket", agent, ticket_id=ticket, assigned_to=agent.id)
    story.tell("AddComment", agent, ticket_id=ticket, comment="We ask the kitchen.")
    story.tell("AddComment", agent, ticket_id=ticket, comment="Again that kitchen.", is_internal=True)
    story.tell("UpdateTicketStatus", agent, ticket_id=ticket, status="resolved", resolution_notes="Refunded.")
    story.tell("AddComment", owner, ticket_id=ticket, comment="Not yet!", is_internal=False)
    read_all(story, ticket, owner, agent, app)
    work_as_a_team(story, ticket, agent, boss)
    story.tell("UpdateTicketStatus", owner, ticket_id=ticket, status="closed", expected_version=5)
    story.tell("RateTicket", owner, ticket_id=ticket, rating=3, remark=" In the end. ")
    story.tell("RateTicket", owner, ticket_id=ticket, rating=4)
    for reader in (owner, agent):
        story.tell("GetTicketFeedback", reader, ticket_id=ticket)
    reveal_all(story, owner, boss)
    story.tell("GetTicket", app, ticket_id=ticket)


def reveal_all(story: Story, owner: Caller, boss: Caller) -> None:
    """What is masked, and what it was."""
    fields = {"subject": "My PIN is 4711", "description": "Card 4111 1111 1111 1111, CVV 123. 🍲"}
    ticket = story.tell("CreateTicket", owner, **fields)["id"]
    comment = story.tell("AddComment", owner, ticket_id=ticket, comment="\u3000 password: hunter2x ")["id"]
    story.tell("ListComments", owner, ticket_id=ticket)
    story.tell("RevealTicket", boss, ticket_id=ticket.upper())
    story.tell("RevealComment", boss, ticket_id=ticket, comment_id=comment.upper())
    story.tell("ListTicketHistory", boss, ticket_id=ticket)


def read_all(story: Story, ticket: str, owner: Caller, agent: Caller, app: Caller) -> None:
    """Every list, as each of those who may see it, by pages too."""
    for caller in (owner, agent):
        story.tell("ListComments", caller, ticket_id=ticket)
        story.tell("ListTicketHistory", caller, ticket_id=ticket)
    for caller in (agent, app):
        story.tell("ListTickets", caller, user_id=owner.id, status=["open", "in_progress"])
    story.tell("ListTickets", app, user_id=owner.id, unassigned=True, created_after="2001-02-03T04:05:06.789Z")
    story.tell("ListTickets", app, user_id=owner.id, created_before="2001-02-03T04:05:06Z")
    story.tell("ListAssignedTickets", agent, priority=["urgent", "low"])
    page = story.tell("ListMyTickets", owner, page_size=2)
    story.tell("ListMyTickets", owner, page_size=2, page_token=page["next_page_token"])


def work_as_a_team(story: Story, ticket: str, agent: Caller, boss: Caller) -> None:
    """The roster, on which nobody is before, and the tickets' change of hands."""
    for caller in (agent, boss):
        story.tell("SetAgent", boss, agent_id=caller.id, display_name=" Ada ", role=caller.role, tier=2, capacity=1)
    story.tell("SetAgent", boss, agent_id=boss.id, display_name="Bo", active=False)
    story.tell("SetAgentAvailability", boss, agent_id=boss.id, availability="busy")
    story.tell("SetAgentAvailability", agent, agent_id=agent.id, availability="away", away_until="2999-01-01T00:00:00Z")
    story.tell("GetAgent", agent, agent_id=agent.id.upper())
    story.tell("ListAgents", agent)
    story.tell("ListAgents", agent, with_inactive=True, availability=["busy", "available"])
    story.tell("ReassignTickets", boss, ticket_ids=[ticket], assigned_to=boss.id)
    story.tell("ReassignTickets", boss, from_agent=agent.id)
    story.tell("ReassignTickets", boss, from_agent=agent.id, assigned_to=new_id())
    story.tell("ListUnattendedTickets", boss, assigned_to=agent.id, priority=["urgent"])


def masked(told: list[tuple[str, Answer]]) -> list[tuple[str, Answer]]:
    """The same with every UUID and time as the number of its first appearance, no page token and no age."""
    seen: dict[str, str] = {}

    def mask(value: Json) -> Json:
        if isinstance(value, str):
            return UUID_OR_TIME.sub(lambda found: seen.setdefault(found[0], f"#{len(seen)}"), value)
        if isinstance(value, list):
            return [mask(item) for item in value]
        if isinstance(value, dict):
            return {name: mask(item) for name, item in value.items() if name not in ("next_page_token", "age_seconds")}
        return value

    return [(call, answer._replace(payload=mask(answer.payload))) for call, answer in told]


def test_a_ticket_lives_the_same_life_at_every_door(stage: Stage) -> None:
    stories = [Story(door) for door in stage.doors]
    for story in stories:
        empty_roster(stage)
        play(story)

    assert {call for call, _ in stories[0].told} == CALLS.keys()
    first, *others = (masked(story.told) for story in stories)
    for other in others:
        assert other == first


def test_what_was_written_at_one_door_reads_the_same_at_every_door(stage: Stage) -> None:
    owner, agent = as_customer(), as_agent()
    ticket = open_ticket(stage.rest, owner, order_id=new_id(), priority="high")
    assign(stage.grpc, agent, ticket)
    comment(stage.own_port, agent, ticket, is_internal=True)
    comment(stage.rest, owner, ticket)
    move(stage.grpc, agent, ticket, "resolved", resolution_notes="Refunded.")

    for call, fields in {
        "GetTicket": {"ticket_id": ticket["id"]},
        "ListComments": {"ticket_id": ticket["id"]},
        "ListTicketHistory": {"ticket_id": ticket["id"]},
        "ListTickets": {"user_id": owner.id},
        "ListAssignedTickets": {},
        "ListMyTickets": {},
    }.items():
        first, *others = (door.call(call, agent, **fields) for door in stage.doors)
        assert first.code == 0
        assert others == [first, first]


# --- What is refused --------------------------------------------------------------------------------------------------


class Exhibits(NamedTuple):
    """Tickets of one owner in every state, and who else is around. Nothing changes them."""

    owner: Caller
    stranger: Caller
    agent: Caller
    supervisor: Caller
    service: Caller
    open: str
    in_progress: str
    resolved: str
    closed: str
    missing: str


@pytest.fixture(scope="module")
def exhibits(stage: Stage) -> Exhibits:
    owner, agent = as_customer(), as_agent()
    opened, taken, answered, done = (open_ticket(stage.rest, owner) for _ in range(4))
    assign(stage.rest, agent, taken)
    move(stage.rest, agent, answered, "resolved")
    move(stage.rest, agent, done, "closed")
    supervisor = as_supervisor()
    for one in (agent, supervisor):
        hire(stage.rest, one)
    return Exhibits(
        *(owner, as_customer(), agent, supervisor, as_service()),
        open=opened["id"],
        in_progress=taken["id"],
        resolved=answered["id"],
        closed=done["id"],
        missing=new_id(),
    )


class Refusal(NamedTuple):
    """A call that must fail. Texts in braces among the fields stand for an attribute of the exhibits."""

    call: str
    who: str
    fields: dict[str, Any]
    code: int
    reason: str
    bad_fields: frozenset[str] = frozenset()
    key: str | None = None


def bad(call: str, who: str, names: str, key: str | None = None, **fields: Json) -> Refusal:
    """Refused for these fields, all at once."""
    return Refusal(call, who, fields, INVALID_ARGUMENT, "INVALID_FIELDS", frozenset(names.split()), key)


def no_ticket(call: str, who: str, ticket: str, **fields: Json) -> Refusal:
    """Refused because this caller can't see such a ticket."""
    return Refusal(call, who, {"ticket_id": ticket, **fields}, NOT_FOUND, "TICKET_NOT_FOUND")


def no_agent(call: str, who: str, agent: str, **fields: Json) -> Refusal:
    """Refused because nobody with that id is on the roster."""
    return Refusal(call, who, {"agent_id": agent, **fields}, NOT_FOUND, "AGENT_NOT_FOUND")


def role(call: str, who: str, **fields: Json) -> Refusal:
    """Refused because of the role, whatever the fields."""
    return Refusal(call, who, fields, PERMISSION_DENIED, "ROLE_NOT_ALLOWED")


def action(call: str, who: str, **fields: Json) -> Refusal:
    """Refused because the role may not do just this."""
    return Refusal(call, who, fields, PERMISSION_DENIED, "ACTION_NOT_ALLOWED")


def rule(call: str, who: str, reason: str, **fields: Json) -> Refusal:
    """Refused by a rule of the ticket's life."""
    return Refusal(call, who, fields, FAILED_PRECONDITION, reason)


def version(call: str, who: str, **fields: Json) -> Refusal:
    """Refused because the ticket is at another version."""
    return Refusal(call, who, fields, ABORTED, "VERSION_MISMATCH")


TEXTS = {"subject": "s", "description": "d"}
NO_ENUMS: Json = {"status": ["status_unspecified"], "priority": ["priority_unspecified"]}
NOBODY = "00000000-0000-0000-0000-000000000000"
BACK_IN_2999: Json = {"agent_id": "{agent}", "availability": "away", "away_until": "2999-01-01T00:00:00Z"}
RESOLVE: Json = {"ticket_id": "{open}", "status": "resolved"}

REFUSALS = [
    bad("CreateTicket", "owner", "subject description", subject=" ", description="\u2003\n"),
    bad("CreateTicket", "owner", "subject description", subject="a\x00b", description="a\x85b"),
    bad("CreateTicket", "owner", "subject description", subject="s" * 201, description="d" * 10_001),
    bad("CreateTicket", "owner", "order_id user_id", **TEXTS, order_id="1", user_id=""),
    bad("CreateTicket", "owner", "idempotency-key", key="", **TEXTS),
    bad("CreateTicket", "owner", "idempotency-key", key="k" * 256, **TEXTS),
    action("CreateTicket", "owner", **TEXTS, user_id="{stranger}"),
    role("ListTickets", "owner"),
    role("ListTickets", "owner", page_size=-1),
    bad("ListTickets", "agent", "user_id page_size", user_id="x", page_size=-1),
    bad("ListTickets", "service", "unassigned", unassigned=True, assigned_to="{agent}"),
    bad("ListTickets", "service", "page_token", page_token="bm9uc2Vuc2U"),
    bad("ListMyTickets", "owner", "page_size", page_size=-1),
    bad("ListMyTickets", "service", "page_token", page_token="%"),
    role("ListAssignedTickets", "owner"),
    role("ListAssignedTickets", "service"),
    bad("ListAssignedTickets", "agent", "page_token", page_token="x"),
    bad("GetTicket", "owner", "ticket_id", ticket_id="1"),
    bad("GetTicket", "owner", "ticket_id", ticket_id="0192f0c123457abc8def0123456789ab"),
    no_ticket("GetTicket", "owner", "{missing}"),
    no_ticket("GetTicket", "stranger", "{open}"),
    no_ticket("GetTicket", "agent", "{missing}"),
    role("UpdateTicketStatus", "service", ticket_id="{open}", status="closed"),
    bad("UpdateTicketStatus", "agent", "status", ticket_id="{open}"),
    bad("UpdateTicketStatus", "agent", "ticket_id status expected_version", ticket_id="1", expected_version=0),
    bad("UpdateTicketStatus", "agent", "resolution_notes", ticket_id="{open}", status="closed", resolution_notes="n"),
    bad("UpdateTicketStatus", "agent", "resolution_notes", ticket_id="{open}", status="resolved", resolution_notes=" "),
    no_ticket("UpdateTicketStatus", "agent", "{missing}", status="closed"),
    no_ticket("UpdateTicketStatus", "stranger", "{open}", status="closed"),
    action("UpdateTicketStatus", "owner", ticket_id="{open}", status="resolved"),
    version("UpdateTicketStatus", "agent", ticket_id="{open}", status="closed", expected_version=7),
    version("UpdateTicketStatus", "agent", ticket_id="{open}", status="open", expected_version=7),
    rule("UpdateTicketStatus", "agent", "ILLEGAL_TRANSITION", ticket_id="{closed}", status="open"),
    rule("UpdateTicketStatus", "agent", "ILLEGAL_TRANSITION", ticket_id="{resolved}", status="open"),
    role("AssignTicket", "owner", ticket_id="{open}", assigned_to="{owner}"),
    role("AssignTicket", "service", ticket_id="{open}", assigned_to="{agent}"),
    bad("AssignTicket", "agent", "ticket_id assigned_to", ticket_id="x", assigned_to=""),
    bad(
        "AssignTicket", "supervisor", "expected_version", ticket_id="{open}", assigned_to="{agent}", expected_version=-1
    ),
    no_ticket("AssignTicket", "supervisor", "{missing}", assigned_to="{agent}"),
    action("AssignTicket", "agent", ticket_id="{open}", assigned_to="{supervisor}"),
    version("AssignTicket", "agent", ticket_id="{open}", assigned_to="{agent}", expected_version=2),
    version("AssignTicket", "agent", ticket_id="{in_progress}", assigned_to="{agent}", expected_version=9),
    rule("AssignTicket", "agent", "TICKET_NOT_ASSIGNABLE", ticket_id="{resolved}", assigned_to="{agent}"),
    rule("AssignTicket", "supervisor", "TICKET_NOT_ASSIGNABLE", ticket_id="{closed}", assigned_to="{agent}"),
    role("ListTicketHistory", "service", ticket_id="{open}"),
    bad("ListTicketHistory", "agent", "ticket_id page_size", ticket_id="x", page_size=-1),
    bad("ListTicketHistory", "owner", "page_token", ticket_id="{open}", page_token="x"),
    no_ticket("ListTicketHistory", "agent", "{missing}"),
    no_ticket("ListTicketHistory", "stranger", "{open}"),
    role("RateTicket", "service", ticket_id="{resolved}", rating=5),
    role("RateTicket", "agent", ticket_id="{resolved}", rating=5),
    bad("RateTicket", "owner", "ticket_id rating remark", ticket_id="x", rating=6, remark=" "),
    bad("RateTicket", "owner", "rating", ticket_id="{open}"),
    bad("RateTicket", "owner", "rating", ticket_id="{missing}", rating=-1),
    bad("RateTicket", "owner", "remark", ticket_id="{resolved}", rating=1, remark="r" * 2_001),
    bad("RateTicket", "owner", "remark", ticket_id="{resolved}", rating=1, remark=""),
    no_ticket("RateTicket", "owner", "{missing}", rating=1),
    no_ticket("RateTicket", "stranger", "{resolved}", rating=1),
    rule("RateTicket", "owner", "TICKET_NOT_RATABLE", ticket_id="{open}", rating=1),
    rule("RateTicket", "owner", "TICKET_NOT_RATABLE", ticket_id="{in_progress}", rating=1),
    role("GetTicketFeedback", "service", ticket_id="{resolved}"),
    bad("GetTicketFeedback", "agent", "ticket_id", ticket_id="x"),
    no_ticket("GetTicketFeedback", "agent", "{missing}"),
    no_ticket("GetTicketFeedback", "stranger", "{resolved}"),
    Refusal("GetTicketFeedback", "owner", {"ticket_id": "{closed}"}, NOT_FOUND, "FEEDBACK_NOT_FOUND"),
    *(
        refusal
        for call in ("GetTicketOrder", "GetTicketRequester")
        for refusal in (
            role(call, "owner", ticket_id="{open}"),
            role(call, "service", ticket_id="{open}"),
            bad(call, "agent", "ticket_id", ticket_id="x"),
            no_ticket(call, "agent", "{missing}"),
            no_ticket(call, "supervisor", "{missing}"),
        )
    ),
    role("AddComment", "service", ticket_id="{open}", comment="c"),
    bad("AddComment", "owner", "ticket_id comment", ticket_id="x", comment="\t"),
    bad("AddComment", "owner", "comment idempotency-key", ticket_id="{open}", comment="", key="a b"),
    no_ticket("AddComment", "agent", "{missing}", comment="c"),
    no_ticket("AddComment", "stranger", "{open}", comment="c"),
    action("AddComment", "owner", ticket_id="{open}", comment="c", is_internal=True),
    rule("AddComment", "owner", "TICKET_CLOSED", ticket_id="{closed}", comment="c"),
    rule("AddComment", "agent", "TICKET_CLOSED", ticket_id="{closed}", comment="c"),
    role("ListComments", "service", ticket_id="{open}"),
    bad("ListComments", "owner", "ticket_id page_size page_token", ticket_id="x", page_size=-1, page_token="x"),
    no_ticket("ListComments", "agent", "{missing}"),
    no_ticket("ListComments", "stranger", "{open}"),
    *(role("RevealTicket", who, ticket_id="{open}") for who in ("owner", "agent", "service")),
    bad("RevealTicket", "supervisor", "ticket_id", ticket_id="x"),
    no_ticket("RevealTicket", "supervisor", "{missing}"),
    *(role("RevealComment", who, ticket_id="{open}", comment_id="x") for who in ("owner", "agent", "service")),
    bad("RevealComment", "supervisor", "ticket_id comment_id", ticket_id="x", comment_id="y"),
    no_ticket("RevealComment", "supervisor", "{missing}", comment_id="{missing}"),
    Refusal(
        *("RevealComment", "supervisor", {"ticket_id": "{open}", "comment_id": "{missing}"}),
        *(NOT_FOUND, "COMMENT_NOT_FOUND"),
    ),
    role("ListUnattendedTickets", "agent"),
    role("ListUnattendedTickets", "owner", page_size=-1),
    bad("ListUnattendedTickets", "supervisor", "assigned_to page_size", assigned_to="x", page_size=-1),
    role("SetAgent", "agent", agent_id="{agent}", display_name="Ada"),
    role("SetAgent", "service", agent_id="{agent}", display_name="Ada"),
    bad("SetAgent", "supervisor", "agent_id display_name tier capacity", agent_id="x", tier=6, capacity=-1),
    bad("SetAgent", "supervisor", "role", agent_id="{agent}", display_name="Ada", role="customer"),
    bad("SetAgent", "supervisor", "agent_id", agent_id=NOBODY, display_name="Ada"),
    role("GetAgent", "owner", agent_id="{agent}"),
    bad("GetAgent", "agent", "agent_id", agent_id="x"),
    no_agent("GetAgent", "agent", "{missing}"),
    role("ListAgents", "service"),
    bad("ListAgents", "agent", "page_size page_token", page_size=-1, page_token="x"),
    role("SetAgentAvailability", "owner", agent_id="{owner}", availability="busy"),
    bad("SetAgentAvailability", "agent", "agent_id availability", agent_id="x"),
    bad("SetAgentAvailability", "agent", "away_until", **BACK_IN_2999 | {"availability": "busy"}),
    bad("SetAgentAvailability", "agent", "away_until", **BACK_IN_2999 | {"away_until": "2001-02-03T04:05:06Z"}),
    no_agent("SetAgentAvailability", "agent", "{missing}", availability="busy"),
    no_agent("SetAgentAvailability", "supervisor", "{missing}", availability="busy"),
    action("SetAgentAvailability", "agent", agent_id="{supervisor}", availability="busy"),
    role("ReassignTickets", "agent", from_agent="{agent}"),
    bad("ReassignTickets", "supervisor", "ticket_ids"),
    bad("ReassignTickets", "supervisor", "ticket_ids from_agent", ticket_ids=[NOBODY], from_agent="x"),
    bad("ReassignTickets", "supervisor", "ticket_ids assigned_to", ticket_ids=[NOBODY, NOBODY], assigned_to=""),
    # An optional that is there, but empty, is not one that is absent.
    bad("CreateTicket", "owner", "subject description"),
    bad("CreateTicket", "agent", "order_id user_id", **TEXTS, order_id="", user_id=""),
    bad("ListTickets", "agent", "user_id assigned_to", user_id="", assigned_to=""),
    bad("UpdateTicketStatus", "agent", "resolution_notes", **RESOLVE, resolution_notes=""),
    bad("AddComment", "agent", "comment", ticket_id="{open}"),
    # The limits of the other texts.
    bad("AddComment", "owner", "comment", ticket_id="{open}", comment="c" * 10_001),
    bad("UpdateTicketStatus", "agent", "resolution_notes", **RESOLVE, resolution_notes="n" * 10_001),
    bad("UpdateTicketStatus", "agent", "resolution_notes", **RESOLVE, resolution_notes="a\x1bb"),
    # Two things are wrong at once: the order in the comment on TicketService says which of them is told.
    bad("CreateTicket", "owner", "subject", subject=" ", description="d", user_id="{stranger}"),
    bad("UpdateTicketStatus", "stranger", "expected_version", ticket_id="{open}", status="open", expected_version=0),
    bad("AddComment", "owner", "comment", ticket_id="{missing}", comment=" ", is_internal=True),
    no_ticket("UpdateTicketStatus", "stranger", "{closed}", status="resolved", expected_version=7),
    no_ticket("AssignTicket", "agent", "{missing}", assigned_to="{supervisor}", expected_version=7),
    no_ticket("AddComment", "stranger", "{closed}", comment="c", is_internal=True),
    action("UpdateTicketStatus", "owner", ticket_id="{closed}", status="open", expected_version=7),
    action("AssignTicket", "agent", ticket_id="{closed}", assigned_to="{supervisor}", expected_version=7),
    action("AddComment", "owner", ticket_id="{closed}", comment="c", is_internal=True),
    version("UpdateTicketStatus", "agent", ticket_id="{closed}", status="open", expected_version=7),
    version("UpdateTicketStatus", "owner", ticket_id="{closed}", status="closed", expected_version=7),
    version("AssignTicket", "agent", ticket_id="{closed}", assigned_to="{agent}", expected_version=7),
]


def name_of(refusal: Refusal) -> str:
    return "-".join([refusal.call, refusal.who, refusal.reason, *sorted(refusal.bad_fields)])


def test_every_call_is_among_the_refusals() -> None:
    assert {refusal.call for refusal in REFUSALS} == CALLS.keys()


@pytest.mark.parametrize("refusal", REFUSALS, ids=name_of)
def test_a_refusal_is_the_same_at_every_door(stage: Stage, exhibits: Exhibits, refusal: Refusal) -> None:
    names = {name: getattr(value, "id", value) for name, value in exhibits._asdict().items()}
    fields = {name: value.format(**names) if "{" in str(value) else value for name, value in refusal.fields.items()}
    caller = getattr(exhibits, refusal.who)

    first, *others = (door.call(refusal.call, caller, key=refusal.key, **fields) for door in stage.doors)

    assert (first.code, first.reason) == (refusal.code, refusal.reason), first
    assert sorted(first.bad_fields) == sorted(refusal.bad_fields)
    assert first.payload["message"]
    assert others == [first, first]


# Refused by the service with everything else that is wrong; REST callers are told by the gateway, before that.
NO_VALUES_OF_ENUMS = [
    bad("CreateTicket", "owner", "priority order_id", **TEXTS, priority=99, order_id="1"),
    bad("ListTickets", "agent", "status priority user_id page_size", **NO_ENUMS, user_id="x", page_size=-1),
    bad("ListMyTickets", "owner", "status page_size", status=NO_ENUMS["status"], page_size=-1),
    bad("ListAssignedTickets", "agent", "status priority page_token", **NO_ENUMS, page_token="x"),
    bad("UpdateTicketStatus", "agent", "ticket_id status", ticket_id="1", status=99),
    bad("ListUnattendedTickets", "supervisor", "priority page_size", priority=NO_ENUMS["priority"], page_size=-1),
    bad("ListAgents", "agent", "availability page_size", availability=["availability_unspecified"], page_size=-1),
    bad("SetAgent", "supervisor", "role tier", agent_id=NOBODY[:-1] + "1", display_name="Ada", role=99, tier=0),
    bad("SetAgentAvailability", "agent", "availability agent_id", agent_id="1", availability=99),
]


@pytest.mark.parametrize("refusal", NO_VALUES_OF_ENUMS, ids=name_of)
def test_a_value_that_the_enum_does_not_have_is_named_at_every_door(
    stage: Stage, exhibits: Exhibits, refusal: Refusal
) -> None:
    caller = getattr(exhibits, refusal.who)

    over_rest, *over_grpc = (door.call(refusal.call, caller, **refusal.fields) for door in stage.doors)

    assert (over_rest.code, over_rest.reason) == (refusal.code, "MALFORMED_REQUEST")
    enums = {"status", "priority", "availability", "role"}
    assert sorted(over_rest.bad_fields) == sorted(enums & refusal.bad_fields)
    assert [(answer.code, answer.reason) for answer in over_grpc] == [(refusal.code, refusal.reason)] * 2
    assert all(sorted(answer.bad_fields) == sorted(refusal.bad_fields) for answer in over_grpc)


def test_a_stranger_cannot_tell_my_ticket_from_a_missing_one(stage: Stage, exhibits: Exhibits) -> None:
    for door in stage.doors:
        mine, missing = (
            door.call("GetTicket", exhibits.stranger, ticket_id=ticket) for ticket in (exhibits.open, exhibits.missing)
        )
        assert masked([("GetTicket", mine)]) == masked([("GetTicket", missing)])


@pytest.mark.parametrize("call", ["CreateTicket", "AddComment"])
def test_a_key_with_another_request_is_refused_alike_at_every_door(stage: Stage, exhibits: Exhibits, call: str) -> None:
    fields = dict(TEXTS) if call == "CreateTicket" else {"ticket_id": exhibits.open, "comment": "first"}
    key = new_id()
    assert stage.rest.call(call, exhibits.owner, key=key, **fields).code == 0

    changed = {**fields, "description" if call == "CreateTicket" else "comment": "second"}
    first, *others = (door.call(call, exhibits.owner, key=key, **changed) for door in stage.doors)

    assert (first.code, first.reason) == (ALREADY_EXISTS, "IDEMPOTENCY_KEY_REUSED")
    assert others == [first, first]


# --- Whom nobody believes ---------------------------------------------------------------------------------------------


def forged(stage: Stage) -> str:
    """Signed with a key of the forger's own, under the id of the right one."""
    real = stage.stack.mint_token("support_agent")
    claims = jwt.decode(real, options={"verify_signature": False})
    header = jwt.get_unverified_header(real)
    return jwt.encode(claims, ec.generate_private_key(ec.SECP256R1()), "ES256", headers={"kid": header["kid"]})


def unsigned(stage: Stage) -> str:
    """Of the algorithm `none`."""
    claims = jwt.decode(stage.stack.mint_token("support_agent"), options={"verify_signature": False})
    return jwt.encode(claims, "", "none")


def claiming(**claims: Json) -> Callable[[Stage], str]:
    """Well signed, with these claims; None leaves one out."""
    return lambda stage: stage.stack.mint_token("support_agent", **claims)


TOKENS: dict[str, Callable[[Stage], str]] = {
    "no token at all": lambda stage: "nonsense",
    "of three empty parts": lambda stage: "..",
    "forged": forged,
    "unsigned": unsigned,
    "expired": claiming(exp=1_600_000_000),
    "not yet valid": claiming(nbf=4_000_000_000),
    "for another audience": claiming(aud="somebody-else"),
    "of another issuer": claiming(iss=f"{ISSUER}.evil.example"),
    "without expiry": claiming(exp=None),
    "without audience": claiming(aud=None),
    "without subject": claiming(sub=None),
    "with a subject that is no UUID": claiming(sub="root"),
    "without role": claiming(role=None),
    "with an unknown role": claiming(role="admin"),
}

ANY_FIELDS: dict[str, dict[str, Any]] = {
    call: dict.fromkeys(re.findall(r"{(\w+)}", binding.path), "0192f0c1-2345-7abc-8def-0123456789ab")
    for call, binding in EVERY_CALL.items()
}


def test_the_claims_of_the_bad_tokens_are_good_when_left_alone(stage: Stage) -> None:
    token = stage.stack.mint_token("support_agent", aud=[AUDIENCE, "another"], nbf=1)
    for door in stage.doors:
        assert door.call_with("ListTickets", {"authorization": f"Bearer {token}"}, page_size=1).code == 0


@pytest.mark.parametrize("kind", TOKENS)
def test_a_bad_token_is_unauthenticated_at_every_door(stage: Stage, kind: str) -> None:
    headers = {"authorization": f"Bearer {TOKENS[kind](stage)}"}
    for call, fields in ANY_FIELDS.items():
        for door in stage.doors:
            answer = door.call_with(call, headers, **fields)
            assert (answer.code, answer.reason) == (UNAUTHENTICATED, "INVALID_TOKEN"), (door.name, call, answer)


def test_without_a_token_a_call_is_unauthenticated_at_every_door(stage: Stage) -> None:
    pretended = {"x-user-id": new_id(), "x-role": "support_agent", "x-user-role": "support_agent"}
    for call, fields in ANY_FIELDS.items():
        for door in stage.doors:
            answer = door.call_with(call, pretended, **fields)
            assert (answer.code, answer.reason) == (UNAUTHENTICATED, "INVALID_TOKEN"), (door.name, call, answer)
