"""Who may do what, held against section 4 of the contract."""

from itertools import product
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nibble.support.v1 import agent_service_pb2, comment_service_pb2, privacy_service_pb2, ticket_service_pb2

from server.domain import permissions
from server.domain.callers import Role, require_call
from server.domain.tickets import Status
from server.errors import ActionNotAllowed, Code, RoleNotAllowed, TicketNotFound
from tests.unit.vocabulary import AGENT, OWNER, ROLES, STATUSES, a_caller, a_ticket, the_owner

USERS = {"customer", "restaurant", "driver"}
STAFF = {"support_agent", "support_supervisor"}
SUPERVISORS = {"support_supervisor"}
EVERYONE = set(ROLES)

# The column "who", read as: which roles may ever make the call.
WHO = {
    "TicketService.CreateTicket": EVERYONE,
    "TicketService.ListTickets": STAFF | {"service"},
    "TicketService.ListMyTickets": EVERYONE,
    "TicketService.ListAssignedTickets": STAFF,
    "TicketService.GetTicket": EVERYONE,
    "TicketService.UpdateTicketStatus": STAFF | USERS,
    "TicketService.AssignTicket": STAFF,
    "TicketService.ListTicketHistory": STAFF | USERS,
    "CommentService.AddComment": STAFF | USERS,
    "CommentService.ListComments": STAFF | USERS,
    "TicketService.GetTicketOrder": STAFF,
    "TicketService.GetTicketRequester": STAFF,
    "TicketService.RevealTicket": SUPERVISORS,
    "TicketService.RateTicket": USERS,
    "TicketService.GetTicketFeedback": STAFF | USERS,
    "TicketService.ListUnattendedTickets": SUPERVISORS,
    "CommentService.RevealComment": SUPERVISORS,
    "AgentService.SetAgent": SUPERVISORS,
    "AgentService.GetAgent": STAFF,
    "AgentService.ListAgents": STAFF,
    "AgentService.SetAgentAvailability": STAFF,
    "AgentService.ReassignTickets": SUPERVISORS,
    "PrivacyService.ErasePersonalData": SUPERVISORS | {"service"},
    "PrivacyService.ExportPersonalData": SUPERVISORS | {"service"},
}
CALLS = {
    f"{service.name}.{method.name}"
    for module in (ticket_service_pb2, comment_service_pb2, agent_service_pb2, privacy_service_pb2)
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}


def test_the_contract_the_protos_and_the_table_know_the_same_calls() -> None:
    assert set(WHO) == CALLS == set(permissions.MAY_CALL)


def test_the_roles_are_those_of_the_contract() -> None:
    assert {str(role) for role in Role} == EVERYONE


@pytest.mark.parametrize(("call", "role"), [(c, r) for c, r in product(WHO, ROLES) if r in WHO[c]])
def test_a_role_that_may_make_a_call_passes(call: str, role: str) -> None:
    require_call(permissions.MAY_CALL, a_caller(role), call)


@pytest.mark.parametrize(("call", "role"), [(c, r) for c, r in product(WHO, ROLES) if r not in WHO[c]])
def test_a_role_that_may_never_make_a_call_is_denied(call: str, role: str) -> None:
    with pytest.raises(RoleNotAllowed) as refusal:
        require_call(permissions.MAY_CALL, a_caller(role), call)
    assert refusal.value.code is Code.PERMISSION_DENIED
    assert refusal.value.facts == {"role": role, "call": call}


@given(st.text().filter(lambda call: call not in WHO), st.sampled_from(ROLES))
def test_a_call_that_the_table_does_not_know_is_denied_to_everyone(call: str, role: str) -> None:
    with pytest.raises(RoleNotAllowed):
        require_call(permissions.MAY_CALL, a_caller(role), call)


@pytest.mark.parametrize("role", sorted(USERS))
def test_a_user_sees_an_own_ticket(role: str) -> None:
    ticket = a_ticket()
    assert permissions.require_sight(the_owner(role), ticket, ticket.id) is ticket


@pytest.mark.parametrize("role", sorted(STAFF | {"service"}))
def test_staff_and_services_see_every_ticket(role: str) -> None:
    ticket = a_ticket()
    assert permissions.require_sight(a_caller(role), ticket, ticket.id) is ticket


@pytest.mark.parametrize("role", sorted(USERS))
def test_a_stranger_cannot_tell_my_ticket_from_a_missing_one(role: str) -> None:
    ticket = a_ticket()
    with pytest.raises(TicketNotFound) as hidden:
        permissions.require_sight(a_caller(role), ticket, ticket.id)
    with pytest.raises(TicketNotFound) as missing:
        permissions.require_sight(a_caller(role), None, ticket.id)
    assert (hidden.value.message, hidden.value.facts) == (missing.value.message, missing.value.facts)


@pytest.mark.parametrize("role", ROLES)
def test_internal_entries_are_for_staff(role: str) -> None:
    assert permissions.may_see_internal(a_caller(role)) == (role in STAFF)


@pytest.mark.parametrize("role", ROLES)
def test_an_internal_note_is_for_staff_to_write(role: str) -> None:
    if role in STAFF:
        permissions.require_internal_note(a_caller(role), is_internal=True)
    else:
        with pytest.raises(ActionNotAllowed):
            permissions.require_internal_note(a_caller(role), is_internal=True)


@pytest.mark.parametrize("role", ROLES)
def test_a_public_comment_needs_no_rank(role: str) -> None:
    permissions.require_internal_note(a_caller(role), is_internal=False)


@pytest.mark.parametrize("role", ROLES)
def test_only_staff_and_services_create_tickets_for_another(role: str) -> None:
    if role in STAFF | {"service"}:
        permissions.require_owner_choice(a_caller(role), OWNER)
    else:
        with pytest.raises(ActionNotAllowed):
            permissions.require_owner_choice(a_caller(role), OWNER)


@pytest.mark.parametrize("role", ROLES)
def test_everyone_creates_tickets_for_themselves(role: str) -> None:
    permissions.require_owner_choice(a_caller(role, OWNER), OWNER)


@pytest.mark.parametrize(("role", "status"), list(product(sorted(USERS), STATUSES)))
def test_an_owner_asks_for_closed_only(role: str, status: str) -> None:
    if status == "closed":
        permissions.require_status_change(the_owner(role), Status(status))
    else:
        with pytest.raises(ActionNotAllowed):
            permissions.require_status_change(the_owner(role), Status(status))


@pytest.mark.parametrize(("role", "status"), list(product(sorted(STAFF), STATUSES)))
def test_staff_ask_for_any_status(role: str, status: str) -> None:
    permissions.require_status_change(a_caller(role), Status(status))


@pytest.mark.parametrize("assignee", [AGENT, OWNER])
def test_supervisors_assign_anyone(assignee: UUID) -> None:
    permissions.require_assignment(a_caller("support_supervisor"), assignee)


def test_agents_assign_themselves() -> None:
    permissions.require_assignment(a_caller("support_agent", AGENT), AGENT)


def test_agents_assign_nobody_else() -> None:
    with pytest.raises(ActionNotAllowed):
        permissions.require_assignment(a_caller("support_agent"), AGENT)
