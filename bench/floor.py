"""The floor: what any Python gRPC service on PostgreSQL costs, `python -m bench.floor PORT`, used by nothing else.

A bare grpc.aio server on uvloop: each call runs one prepared statement on a pooled connection and answers with the
service's own message. No tokens, no checks, no rules, no page tokens, no logs, no metrics. A write leaves the same rows
behind as the service's, and the lists are the service's own statements. Ids come as text, so that no UUID object is
made on the way.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import grpc
import uvloop
from nibble.support.v1 import (
    comment_pb2,
    comment_service_pb2,
    comment_service_pb2_grpc,
    ticket_pb2,
    ticket_service_pb2,
    ticket_service_pb2_grpc,
)
from psycopg import AsyncConnection, AsyncRawCursor
from psycopg_pool import AsyncConnectionPool

from server.db.database import PoolLimits
from server.db.statement import Statement
from server.db.statements import LIST_COMMENTS, LIST_TICKETS
from server.domain.paging import FIRST, LAST
from server.domain.tickets import TRIAGE_RANK, Priority, Status

NAME = "floor"
"""What PostgreSQL knows its connections by."""

PAGE = 20
Row = Sequence[Any]
Pool = AsyncConnectionPool[AsyncConnection[tuple[Any, ...]]]

_TICKET = (
    "id::text, user_id::text, order_id::text, subject, description, status, priority, assigned_to::text, resolved_at,"
    " resolution_notes, created_at, updated_at, version, flagged_at, findings"
)
_COMMENT = "id::text, ticket_id::text, user_id::text, comment, is_internal, created_at, author_role, findings"
_SNAPSHOT = "jsonb_build_object({})".format(
    ", ".join(
        f"'{name}', {name}"
        for name in (
            *("id", "user_id", "order_id", "subject", "status", "priority", "assigned_to", "resolved_at"),
            *("created_at", "updated_at", "version", "flagged_at"),
        )
    )
)


def _with_columns(sql: str) -> str:
    return sql.format(ticket=_TICKET, comment=_COMMENT, snapshot=_SNAPSHOT)


GET = _with_columns("SELECT {ticket} FROM admin_service.support_tickets WHERE id = $1")
CREATE = _with_columns("""
    WITH made AS (
        INSERT INTO admin_service.support_tickets (
            id, user_id, subject, description, status, priority, created_at, updated_at, version, event_count,
            history_count, unattended_since
        )
        VALUES (uuidv7(), gen_random_uuid(), $1, $2, 'open', $3, now(), now(), 1, 1, 1, now())
        RETURNING *
    ), recorded AS (
        INSERT INTO admin_service.ticket_events (
            id, ticket_id, position, sequence, change_id, event_type, occurred_at, actor_id, actor_role, is_internal,
            ticket
        )
        SELECT uuidv7(), id, 1, 1, uuidv7(), 'ticket_created', created_at, user_id, 'customer', false, {snapshot}
        FROM made
    )
    SELECT {ticket} FROM made
""")
COMMENT = _with_columns("""
    WITH counted AS (
        UPDATE admin_service.support_tickets
        SET event_count = event_count + 1, history_count = history_count + 1
        WHERE id = $1
        RETURNING *
    ), said AS (
        INSERT INTO admin_service.ticket_comments (
            id, ticket_id, user_id, comment, is_internal, created_at, author_role
        )
        SELECT uuidv7(), id, user_id, $2, false, now(), 'customer' FROM counted
        RETURNING *
    ), recorded AS (
        INSERT INTO admin_service.ticket_events (
            id, ticket_id, position, sequence, change_id, event_type, occurred_at, actor_id, actor_role, is_internal,
            comment_id, author_role, ticket
        )
        SELECT uuidv7(), id, history_count, event_count, uuidv7(), 'ticket_commented', now(), user_id, 'customer',
            false, (SELECT id FROM said), 'customer', {snapshot}
        FROM counted
    )
    SELECT {comment} FROM said
""")
MOVE = _with_columns("""
    WITH moved AS (
        UPDATE admin_service.support_tickets
        SET status = $2, resolved_at = NULL, updated_at = now(), version = version + 1, event_count = event_count + 1,
            history_count = history_count + 1, unattended_since = now(), flagged_at = NULL, quiet_since = NULL
        WHERE id = $1
        RETURNING old.status AS old_status, new.*
    ), recorded AS (
        INSERT INTO admin_service.ticket_events (
            id, ticket_id, position, sequence, change_id, event_type, occurred_at, actor_id, actor_role, is_internal,
            from_status, to_status, reason, ticket
        )
        SELECT uuidv7(), id, history_count, event_count, uuidv7(), 'ticket_status_changed', now(), user_id,
            'support_agent', false, old_status, status, 'by_staff', {snapshot}
        FROM moved
    )
    SELECT {ticket} FROM moved
""")

_STATUS = {number: word for word, number in ticket_pb2.Ticket.Status.items()}
_PRIORITY = {number: word for word, number in ticket_pb2.Ticket.Priority.items()}
_RANK = {number: str(TRIAGE_RANK[Priority(word)]) for number, word in _PRIORITY.items() if number}
_ALL_STATUSES = "{" + ",".join(Status) + "}"
_ALL_RANKS = "{0,1,2,3}"


def _page_of(statement: Statement, columns: str) -> str:
    return f"SELECT {columns} FROM ({statement.sql}) AS page"  # noqa: S608 - of constants


def _texts(values: Mapping[str, object]) -> dict[str, str]:
    """PostgreSQL reads parameters from text; there is nothing quicker for a client to send."""
    return {name: str(value) for name, value in values.items()}


LIST = _page_of(LIST_TICKETS, _TICKET)
LISTED_COMMENTS = _page_of(LIST_COMMENTS, _COMMENT)
_FROM_FIRST = _texts(
    {
        "after_rank": FIRST.number,
        "after_created_at": FIRST.created_at,
        "after_id": FIRST.id,
        "created_after": datetime.min.replace(tzinfo=FIRST.created_at.tzinfo),
        "created_before": LAST.created_at,
        "limit": PAGE,
        "statuses": _ALL_STATUSES,
        "ranks": _ALL_RANKS,
    }
)
_FROM_LAST: dict[str, str | None] = {"owner": None} | _texts(
    {"with_internal": False, "after_created_at": LAST.created_at, "after_id": LAST.id, "limit": PAGE}
)


def _ticket(row: Row) -> ticket_pb2.Ticket:
    return ticket_pb2.Ticket(
        id=row[0],
        user_id=row[1],
        order_id=row[2],
        subject=row[3],
        description=row[4],
        status=row[5],
        priority=row[6],
        assigned_to=row[7],
        resolved_at=row[8],
        resolution_notes=row[9],
        created_at=row[10],
        updated_at=row[11],
        version=row[12],
        flagged_at=row[13],
        sensitive_findings=row[14],
    )


def _comment(row: Row) -> comment_pb2.TicketComment:
    return comment_pb2.TicketComment(
        id=row[0],
        ticket_id=row[1],
        user_id=row[2],
        comment=row[3],
        is_internal=row[4],
        created_at=row[5],
        author_role=row[6],
        sensitive_findings=row[7],
    )


class _Floor:
    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def _one(self, sql: str, values: Row) -> Row:
        (row,) = await self._all(sql, values)
        return row

    async def _all(self, sql: str, values: Row) -> Sequence[Row]:
        # Beside what `connection()` does, which is to end a transaction that there is none of.
        connection = await self._pool.getconn()
        try:
            cursor = await connection.execute(sql, values, prepare=True, binary=True)
            return await cursor.fetchall()
        finally:
            await self._pool.putconn(connection)


class _Tickets(_Floor, ticket_service_pb2_grpc.TicketServiceServicer):
    async def CreateTicket(  # noqa: N802 - the names are those of the proto
        self, request: ticket_service_pb2.CreateTicketRequest, _context: object
    ) -> ticket_pb2.Ticket:
        priority = _PRIORITY[request.priority or ticket_pb2.Ticket.medium]
        return _ticket(await self._one(CREATE, (request.subject, request.description, priority)))

    async def GetTicket(  # noqa: N802
        self, request: ticket_service_pb2.GetTicketRequest, _context: object
    ) -> ticket_pb2.Ticket:
        return _ticket(await self._one(GET, (request.ticket_id,)))

    async def ListTickets(  # noqa: N802
        self, request: ticket_service_pb2.ListTicketsRequest, _context: object
    ) -> ticket_service_pb2.ListTicketsResponse:
        rows = await self._all(LIST, _filtered(request) if request.status or request.priority else _UNFILTERED)
        return ticket_service_pb2.ListTicketsResponse(tickets=[_ticket(row) for row in rows])

    async def UpdateTicketStatus(  # noqa: N802
        self, request: ticket_service_pb2.UpdateTicketStatusRequest, _context: object
    ) -> ticket_pb2.Ticket:
        return _ticket(await self._one(MOVE, (request.ticket_id, _STATUS[request.status])))


class _Comments(_Floor, comment_service_pb2_grpc.CommentServiceServicer):
    async def AddComment(  # noqa: N802
        self, request: comment_service_pb2.AddCommentRequest, _context: object
    ) -> comment_pb2.TicketComment:
        return _comment(await self._one(COMMENT, (request.ticket_id, request.comment)))

    async def ListComments(  # noqa: N802
        self, request: comment_service_pb2.ListCommentsRequest, _context: object
    ) -> comment_service_pb2.ListCommentsResponse:
        rows = await self._all(LISTED_COMMENTS, LIST_COMMENTS.bind(_FROM_LAST | {"ticket_id": request.ticket_id}))
        return comment_service_pb2.ListCommentsResponse(comments=[_comment(row) for row in rows])


def _filtered(request: ticket_service_pb2.ListTicketsRequest) -> Row:
    statuses = ",".join([_STATUS[number] for number in request.status])
    ranks = ",".join([_RANK[number] for number in request.priority])
    return LIST_TICKETS.bind(
        {
            **_FROM_FIRST,
            "statuses": f"{{{statuses}}}" if statuses else _ALL_STATUSES,
            "ranks": f"{{{ranks}}}" if ranks else _ALL_RANKS,
        }
    )


_UNFILTERED = LIST_TICKETS.bind(_FROM_FIRST)


async def _serve(port: int, dsn: str) -> None:
    size = PoolLimits().size
    # As the service has it: each statement is planned once.
    session = {"options": "-c timezone=UTC -c plan_cache_mode=force_generic_plan", "application_name": NAME}
    how = {"autocommit": True, "cursor_factory": AsyncRawCursor, **session}
    async with AsyncConnectionPool(dsn, min_size=size, max_size=size, kwargs=how, open=False) as pool:
        server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        # What nobody measures is not there.
        tickets, comments = _Tickets(pool), _Comments(pool)  # type: ignore[abstract]
        ticket_service_pb2_grpc.add_TicketServiceServicer_to_server(tickets, server)
        comment_service_pb2_grpc.add_CommentServiceServicer_to_server(comments, server)
        server.add_insecure_port(f"127.0.0.1:{port}")
        await server.start()
        await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1]), os.environ["DATABASE_URL"]))
