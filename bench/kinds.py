"""The kinds of call that are measured: who asks for what, and how one sees that the answer is right."""

import random
from collections.abc import Callable, Iterator, Sequence
from itertools import cycle
from typing import Any, NamedTuple
from uuid import UUID

from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from nibble.support.v1 import comment_service_pb2, ticket_pb2, ticket_service_pb2

from bench.data_set import DataSet, KnownTicket, remark, story, subject

VARIETY = 64
"""How many requests of a kind each caller has ready; then it begins again."""

PAGE = 20
_TICKETS = ticket_service_pb2.DESCRIPTOR.services_by_name["TicketService"].methods_by_name
_COMMENTS = comment_service_pb2.DESCRIPTOR.services_by_name["CommentService"].methods_by_name
_OPEN, _IN_PROGRESS = ticket_pb2.Ticket.open, ticket_pb2.Ticket.in_progress
_STATUS_WORD = {number: word for word, number in ticket_pb2.Ticket.Status.items()}


class Ask(NamedTuple):
    """One request, and who makes it."""

    request: Any
    role: str
    caller: UUID


class Share(NamedTuple):
    """What one of several callers draws its requests from."""

    data: DataSet
    dice: random.Random
    number: int
    of: int

    def own(self, tickets: Sequence[KnownTicket]) -> Sequence[KnownTicket]:
        """Those of the tickets that no other caller has."""
        return tickets[self.number :: self.of]


class Kind(NamedTuple):
    """One kind of call.

    `asks` makes the requests of one caller, in their order and without end. `is_answered` looks at a request and its
    answer, a message or the members of a JSON object. `target` is the most that the service's processor time may be of
    the floor's.
    """

    name: str
    method: MethodDescriptor
    asks: Callable[[Share], Iterator[Ask]]
    is_answered: Callable[[Any, Any], bool]
    target: float | None = None


def _again_and_again(ask: Callable[[Share], Ask]) -> Callable[[Share], Iterator[Ask]]:
    return lambda share: cycle([ask(share) for _ in range(VARIETY)])


def _create(share: Share) -> Ask:
    priority = share.dice.choice([ticket_pb2.Ticket.low, ticket_pb2.Ticket.medium, ticket_pb2.Ticket.high])
    request = ticket_service_pb2.CreateTicketRequest(
        subject=subject(share.dice), description=story(share.dice), priority=priority
    )
    return Ask(request, "customer", share.dice.choice(share.data.owners))


def _get(share: Share) -> Ask:
    """By the owner, or else by staff."""
    ticket = share.dice.choice(share.data.read)
    request = ticket_service_pb2.GetTicketRequest(ticket_id=str(ticket.id))
    if share.dice.random() < 0.5:
        return Ask(request, "customer", ticket.owner)
    return _by_staff(share, request)


def _by_staff(share: Share, request: Message) -> Ask:
    return Ask(request, "support_agent", share.dice.choice(share.data.agents))


def _list(share: Share) -> Ask:
    return _by_staff(share, ticket_service_pb2.ListTicketsRequest(page_size=PAGE))


def _list_filtered(share: Share) -> Ask:
    status = share.dice.choice([[_OPEN], [_IN_PROGRESS], [_OPEN, _IN_PROGRESS]])
    priority = share.dice.choice([[ticket_pb2.Ticket.high], [ticket_pb2.Ticket.urgent, ticket_pb2.Ticket.high]])
    request = ticket_service_pb2.ListTicketsRequest(page_size=PAGE, status=status, priority=priority)
    return _by_staff(share, request)


def _add_comment(share: Share) -> Ask:
    ticket = share.dice.choice(share.own(share.data.discussed))
    request = comment_service_pb2.AddCommentRequest(ticket_id=str(ticket.id), comment=remark(share.dice))
    return Ask(request, "customer", ticket.owner)


def _list_comments(share: Share) -> Ask:
    ticket = share.dice.choice([ticket for ticket in share.data.read if ticket.comments])
    request = comment_service_pb2.ListCommentsRequest(ticket_id=str(ticket.id), page_size=PAGE)
    return Ask(request, "customer", ticket.owner)


def _move(share: Share) -> Iterator[Ask]:
    """Every ticket of the caller's own into progress, then every one open again: each call changes something."""
    tickets = share.own(share.data.moved)
    return cycle(
        [
            _by_staff(share, ticket_service_pb2.UpdateTicketStatusRequest(ticket_id=str(ticket.id), status=status))
            for status in (_IN_PROGRESS, _OPEN)
            for ticket in tickets
        ]
    )


KINDS = {
    kind.name: kind
    for kind in (
        Kind(
            "create",
            _TICKETS["CreateTicket"],
            _again_and_again(_create),
            lambda request, answer: bool(answer.id) and answer.subject == request.subject,
            target=1.35,
        ),
        Kind(
            "get",
            _TICKETS["GetTicket"],
            _again_and_again(_get),
            lambda request, answer: answer.id == request.ticket_id,
            target=1.25,
        ),
        Kind(
            "list",
            _TICKETS["ListTickets"],
            _again_and_again(_list),
            lambda _, answer: len(answer.tickets) == PAGE,
            target=1.25,
        ),
        Kind(
            "list-filtered",
            _TICKETS["ListTickets"],
            _again_and_again(_list_filtered),
            lambda _, answer: len(answer.tickets) == PAGE,
        ),
        Kind(
            "add-comment",
            _COMMENTS["AddComment"],
            _again_and_again(_add_comment),
            lambda request, answer: answer.ticket_id == request.ticket_id and answer.comment == request.comment,
            target=1.35,
        ),
        Kind(
            "list-comments",
            _COMMENTS["ListComments"],
            _again_and_again(_list_comments),
            lambda request, answer: answer.comments[0].ticket_id == request.ticket_id,
            target=1.25,
        ),
        Kind(
            "status",
            _TICKETS["UpdateTicketStatus"],
            _move,
            lambda request, answer: answer.status in (request.status, _STATUS_WORD[request.status]),
        ),
    )
}
METHODS = [kind.method for kind in KINDS.values()]

MIXED = "mixed"
"""All kinds together."""

MIX = {"get": 40, "list": 12, "list-filtered": 10, "list-comments": 18, "create": 8, "add-comment": 8, "status": 4}
"""How many of a hundred calls are of which kind: mostly reads."""


def requests(name: str, share: Share) -> Iterator[tuple[Kind, Ask]]:
    """What one caller asks, of one kind or MIXED, in its order and without end."""
    if name != MIXED:
        return ((KINDS[name], ask) for ask in KINDS[name].asks(share))
    deck = [name for name, count in MIX.items() for _ in range(count)]
    share.dice.shuffle(deck)
    each = {name: requests(name, share) for name in MIX}
    return (next(each[name]) for name in cycle(deck))
