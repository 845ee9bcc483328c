"""The calls that are to be as fast among ten million tickets as among ten thousand: who looks at which of them."""

import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import cycle, repeat
from typing import Any, NamedTuple, Self
from uuid import UUID

import grpc
import psycopg
from nibble.support.v1 import comment_service_pb2 as comment_pb
from nibble.support.v1 import comment_service_pb2_grpc, ticket_service_pb2_grpc
from nibble.support.v1 import ticket_service_pb2 as pb

from bench.company import CallersFailed
from bench.lives import CHATTY
from bench.world import World
from devstack.stack import Stack

PAGE, LARGEST_PAGE, DEEP_PAGE, DEEP_PAGES = 20, 100, 500, 5
BUSY = 20
"""How many users are the busy ones."""

# Each by one index and nothing else, so that no ticket's own row has been read when it is looked at.
_TICKET = "SELECT id FROM admin_service.support_tickets WHERE id >= %s ORDER BY id LIMIT 1"
_USER = "SELECT user_id FROM admin_service.support_tickets WHERE user_id >= %s ORDER BY user_id LIMIT 1"
_COMMENTED = "SELECT ticket_id FROM admin_service.ticket_comments WHERE ticket_id >= %s ORDER BY ticket_id LIMIT 1"
_CHATTY = "SELECT ticket_id FROM admin_service.ticket_comments GROUP BY ticket_id HAVING count(*) >= %s LIMIT %s"
_ENDS = (
    "SELECT id FROM admin_service.support_tickets ORDER BY id LIMIT 1",
    "SELECT id FROM admin_service.support_tickets ORDER BY id DESC LIMIT 1",
)


class Subjects(NamedTuple):
    """The ids, as text, of the tickets and users that are looked at; busy users are those with most tickets."""

    tickets: Sequence[str]
    commented: Sequence[str]
    users: Sequence[str]
    chatty: Sequence[str]
    busy: Sequence[str]

    @classmethod
    def of(cls, dsn: str, tickets: int, seed: int, number: int) -> Self:
        """By chance, of the database of so many tickets that the loader has made with that seed."""
        chance = random.Random(seed)  # noqa: S311 - is to be the same again
        with psycopg.connect(dsn, autocommit=True) as connection:

            def found(statement: str, values: Iterator[UUID]) -> list[str]:
                rows = (connection.execute(statement.encode(), [next(values)]).fetchone() for _ in range(number))
                return [str(row[0]) for row in rows if row]

            first, last = (_only(connection, statement) for statement in _ENDS)
            amid = (UUID(int=chance.randrange(first.int, last.int)) for _ in repeat(None))
            anywhere = (UUID(int=chance.getrandbits(128)) for _ in repeat(None))
            chatty = connection.execute(_CHATTY.encode(), [CHATTY[0], number]).fetchall()
            return cls(
                found(_TICKET, amid),
                found(_COMMENTED, amid),
                found(_USER, anywhere),
                [str(row[0]) for row in chatty],
                [person.name for person in World(tickets, seed).regulars[:BUSY]],
            )


def _only(connection: psycopg.Connection[Any], statement: str) -> UUID:
    row = connection.execute(statement.encode()).fetchone()
    if row is None:
        raise LookupError("the database has no tickets")
    found: UUID = row[0]
    return found


class Look(NamedTuple):
    """One call, and by whom; of its answer `part` has at least so many elements."""

    method: Callable[..., object]
    request: object
    token: str
    part: str
    least: int


class Side:
    """One API among so many tickets, and whoever looks at them, one at a time."""

    def __init__(self, stack: Stack, channel: grpc.Channel, subjects: Subjects) -> None:
        self._subjects = subjects
        self._stack = stack
        self._tickets = ticket_service_pb2_grpc.TicketServiceStub(channel)
        self._comments = comment_service_pb2_grpc.CommentServiceStub(channel)
        self._agent = stack.mint_token("support_agent")
        self._known: set[str] = set()

    @classmethod
    @contextmanager
    def of(cls, stack: Stack, subjects: Subjects) -> Iterator[Self]:
        """With a channel of its own."""
        with grpc.insecure_channel(stack.grpc_target) as channel:
            yield cls(stack, channel, subjects)

    def time(self, look: Look) -> float:
        """Make the call, and return how many seconds it took.

        A token that comes for the first time is checked before: that takes as long wherever it is.

        Raises:
            CallersFailed: the call failed, or its answer has too little.
        """
        if look.token not in self._known:
            self._known.add(look.token)
            with suppress(CallersFailed):
                self._call(look._replace(method=self._tickets.GetTicket, request=_OF_NOBODY))
        began = time.perf_counter()
        answer = self._call(look)
        seconds = time.perf_counter() - began
        if len(getattr(answer, look.part)) < look.least:
            raise CallersFailed(f"the answer to {look.request} has fewer than {look.least} {look.part}")
        return seconds

    def _call(self, look: Look) -> Any:  # noqa: ANN401 - whatever that call answers
        try:
            return look.method(look.request, metadata=(("authorization", f"Bearer {look.token}"),))
        except grpc.RpcError as error:
            raise CallersFailed(f"{look.request}: {error}") from error

    def looks(self) -> Mapping[str, Iterator[Look]]:
        """Of each kind, without end."""
        on = self._subjects
        return {
            "first page": self._listed(repeat({}), PAGE),
            f"page {DEEP_PAGE}": self._listed(({"page_token": token} for token in cycle(self._deep_tokens())), PAGE),
            "open and high": self._listed(repeat({"status": ["open"], "priority": ["high"]}), 1),
            "of a user": self._listed(({"user_id": user} for user in cycle(on.users)), 1),
            "of a busy user": self._listed(({"user_id": user} for user in cycle(on.busy)), PAGE),
            "my tickets": self._mine(on.users, 1),
            "my tickets, busy user": self._mine(on.busy, PAGE),
            "get": self._looks(self._tickets.GetTicket, map(_get, cycle(on.tickets)), "id", 1),
            "history": self._history(on.tickets, 1),
            "history, long": self._history(on.chatty, PAGE),
            "comments": self._comments_on(on.commented, 1),
            "comments, many": self._comments_on(on.chatty, PAGE),
        }

    def _looks(
        self, method: Callable[..., object], requests: Iterable[object], part: str, least: int
    ) -> Iterator[Look]:
        """By an agent."""
        return (Look(method, request, self._agent, part, least) for request in requests)

    def _listed(self, filters: Iterable[Mapping[str, Any]], least: int) -> Iterator[Look]:
        requests = (pb.ListTicketsRequest(**each) for each in filters)
        return self._looks(self._tickets.ListTickets, requests, "tickets", least)

    def _mine(self, users: Sequence[str], least: int) -> Iterator[Look]:
        request, tokens = pb.ListMyTicketsRequest(), [self._stack.mint_token("customer", user) for user in users]
        return (Look(self._tickets.ListMyTickets, request, token, "tickets", least) for token in cycle(tokens))

    def _history(self, tickets: Sequence[str], least: int) -> Iterator[Look]:
        requests = (pb.ListTicketHistoryRequest(ticket_id=ticket) for ticket in cycle(tickets))
        return self._looks(self._tickets.ListTicketHistory, requests, "entries", least)

    def _comments_on(self, tickets: Sequence[str], least: int) -> Iterator[Look]:
        requests = (comment_pb.ListCommentsRequest(ticket_id=ticket) for ticket in cycle(tickets))
        return self._looks(self._comments.ListComments, requests, "comments", least)

    def _deep_tokens(self) -> Sequence[str]:
        """Of the page DEEP_PAGE and some before it, found by going there once."""
        token, tokens = "", []
        ends = (DEEP_PAGE - DEEP_PAGES) * PAGE
        for size in [*repeat(LARGEST_PAGE, ends // LARGEST_PAGE), *repeat(PAGE, DEEP_PAGES - 1)]:
            tokens.append(token)
            (look,) = self._listed([{"page_size": size, "page_token": token}], size)
            token = self._call(look).next_page_token
        return [*tokens[-DEEP_PAGES + 1 :], token]


def _get(ticket: str) -> pb.GetTicketRequest:
    return pb.GetTicketRequest(ticket_id=ticket)


_OF_NOBODY = _get(str(UUID(int=0)))
