"""Every statement of the service, composed by SQLAlchemy; `make generate` compiles each, psycopg runs the text.

A write is one statement: the guarded UPDATE or the INSERT, and the event rows selected from its result, so that an
event can't exist without its change, nor a change without its event.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Any

from sqlalchemy import (
    ARRAY,
    Boolean,
    Integer,
    LargeBinary,
    SmallInteger,
    Text,
    Uuid,
    all_,
    and_,
    any_,
    case,
    column,
    delete,
    func,
    insert,
    literal_column,
    null,
    select,
    true,
    tuple_,
    union_all,
    update,
)
from sqlalchemy.dialects.postgresql import JSONB, Insert
from sqlalchemy.dialects.postgresql import insert as pg_insert
from sqlalchemy.sql.base import ReadOnlyColumnCollection
from sqlalchemy.sql.dml import ReturningUpdate
from sqlalchemy.sql.elements import BindParameter, ColumnElement
from sqlalchemy.sql.selectable import CTE, FromClause, LateralFromClause, Select, TableValuedAlias
from sqlalchemy.types import TypeEngine

from server.db.composing import compiled, moment, param, text, uuid
from server.db.statement import Sharing, Statement
from server.db.tables import (
    QUIET_SINCE,
    SHARD,
    Moment,
    agents,
    comments,
    concealed_texts,
    erasures,
    events,
    feedback,
    idempotency_keys,
    ticket_orders,
    tickets,
)
from server.domain.attention import Unattended
from server.domain.events import HistoryEntry
from server.domain.feedback import Feedback
from server.domain.lifecycle import ASSIGNABLE
from server.domain.privacy import ERASED, Erasable, Erasure
from server.domain.roster import Agent, Availability
from server.domain.tickets import Comment, Status, Ticket

TICKET_COLUMNS = [tickets.c[name] for name in Ticket._fields]
COMMENT_COLUMNS = [comments.c[name] for name in Comment._fields]
FEEDBACK_COLUMNS = [feedback.c[name] for name in Feedback._fields]
# A snapshot in an event carries neither of the two long texts, nor what was found in texts.
_SNAPSHOT_FIELDS = [name for name in Ticket._fields if name not in ("description", "resolution_notes", "findings")]


# --- Events, selected from the ticket's row as a statement left it ---------------------------------------------------

_DRAFTS: dict[str, type[TypeEngine[Any]]] = {
    "event_id": Uuid,
    "event_type": Text,
    "from_status": Text,
    "to_status": Text,
    "assigned_to": Uuid,
    "previous_assignee": Uuid,
    "reason": Text,
    "has_resolution_notes": Boolean,
    "comment_id": Uuid,
    "author_role": Text,
    "rating": Integer,
    "erased_user_id": Uuid,
}


def _drafts() -> TableValuedAlias:
    """The drafts of one change as rows, numbered from 1, from one array parameter per field."""
    arrays = [param(f"draft_{name}", ARRAY(type_)) for name, type_ in _DRAFTS.items()]
    columns = [column(name, type_) for name, type_ in _DRAFTS.items()]
    rows = func.unnest(*arrays).table_valued(*columns, with_ordinality="number", name="drafts")
    return rows.render_derived()


def _snapshot(ticket: CTE) -> ColumnElement[Any]:
    pairs = [part for name in _SNAPSHOT_FIELDS for part in (literal_column(f"'{name}'"), ticket.c[name])]
    return func.jsonb_build_object(*pairs)


def _record_events(ticket: CTE, is_internal: ColumnElement[bool]) -> CTE:
    """The event rows of a change, numbered below the counts that the change left on its ticket."""
    drafts = _drafts()
    total = func.cardinality(param("draft_event_id", ARRAY(Uuid)))
    number = ticket.c.history_count - total + drafts.c.number
    sequence = ticket.c.event_count - total + drafts.c.number
    values = {
        "id": drafts.c.event_id,
        "ticket_id": ticket.c.id,
        "position": number,
        "sequence": case((is_internal, null()), else_=sequence),
        "change_id": uuid("change_id"),
        "occurred_at": moment("now"),
        "actor_id": uuid("actor_id"),
        "actor_role": text("actor_role"),
        "is_internal": is_internal,
        "ticket": case((is_internal, null()), else_=_snapshot(ticket)),
        **{name: drafts.c[name] for name in _DRAFTS if name != "event_id"},
    }
    rows = select(*values.values()).select_from(ticket.join(drafts, true())).order_by(drafts.c.number)
    return insert(events).from_select(list(values), rows).cte("recorded")


_NOT_INTERNAL: ColumnElement[bool] = literal_column("false", Boolean)
_INTERNAL: ColumnElement[bool] = literal_column("true", Boolean)


# --- Idempotency keys -------------------------------------------------------------------------------------------------


# A key that somebody else is just taking is waited for: statements that take one are on their own.
def _claim_key(resource: str, source: CTE | None) -> CTE:
    """Take the caller's key, or no row where it is taken; an expired one is taken over.

    A concurrent holder of the same key is waited for: its row decides.
    """
    values = {
        "caller_id": uuid("actor_id"),
        "call": text("call"),
        "key": text("key"),
        "payload_hash": param("payload_hash", LargeBinary),
        "resource_id": uuid(resource),
        "created_at": moment("now"),
    }
    rows = select(*values.values())
    claim = pg_insert(idempotency_keys).from_select(list(values), rows if source is None else rows.select_from(source))
    renewed = {name: claim.excluded[name] for name in ("payload_hash", "resource_id", "created_at")}
    return (
        claim.on_conflict_do_update(
            constraint=idempotency_keys.primary_key,
            set_=renewed,
            where=idempotency_keys.c.created_at < moment("expired_before"),
        )
        .returning(idempotency_keys.c.resource_id)
        .cte("claimed")
    )


FIND_KEY = compiled(
    select(idempotency_keys.c.payload_hash, idempotency_keys.c.resource_id).where(
        idempotency_keys.c.caller_id == uuid("actor_id"),
        idempotency_keys.c.call == text("call"),
        idempotency_keys.c.key == text("key"),
        idempotency_keys.c.created_at >= moment("expired_before"),
    )
)


def _forget_expired_keys() -> Statement:
    """Delete at most `limit` expired keys, the oldest first, and tell how many.

    Keys that others have locked are passed over: another sweeper deletes them, or their caller renews them. One that
    was renewed since this statement began is looked at again once it is locked, and stays. The rows are found again by
    where they lie: not knowing the limit, PostgreSQL would read the whole table to find them by their key.
    """
    place: ColumnElement[Any] = literal_column("idempotency_keys.ctid")
    expired = (
        select(place)
        .select_from(idempotency_keys)
        .where(idempotency_keys.c.created_at < moment("expired_before"))
        .order_by(idempotency_keys.c.created_at)
        .limit(param("limit", Integer))
        .with_for_update(skip_locked=True)
    )
    is_among = place == any_(func.array(expired.scalar_subquery()))
    gone = delete(idempotency_keys).where(is_among).returning(idempotency_keys.c.created_at).cte("gone")
    return compiled(select(func.count()).select_from(gone))


FORGET_EXPIRED_KEYS = _forget_expired_keys()
OLDEST_EXPIRED_KEY = compiled(
    select(func.min(idempotency_keys.c.created_at)).where(idempotency_keys.c.created_at < moment("expired_before"))
)


# --- Writes -----------------------------------------------------------------------------------------------------------


def _create_ticket(*, keyed: bool) -> Statement:
    values = {
        "id": uuid("ticket_id"),
        "user_id": uuid("user_id"),
        "order_id": uuid("order_id"),
        "subject": text("subject"),
        "description": text("description"),
        "status": literal_column(f"'{Status.OPEN}'"),
        "priority": text("priority"),
        "created_at": moment("now"),
        "updated_at": moment("now"),
        "version": literal_column("1"),
        "event_count": literal_column("1"),
        "history_count": literal_column("1"),
        "unattended_since": moment("now"),
        "findings": param("findings", JSONB),
    }
    rows = select(*values.values())
    if keyed:
        rows = rows.select_from(_claim_key("ticket_id", None))
    created = insert(tickets).from_select(list(values), rows).returning(*tickets.c).cte("created")
    sharing = Sharing.NONE if keyed else Sharing.WRITES
    return _returning_ticket(created, _await_order(created), _conceal(created, "id").cte("concealed"), sharing=sharing)


_CONCEALED_FIELDS = param("concealed_fields", ARRAY(Text))


def _conceal(row: CTE, ticket_id: str) -> Insert:
    """Keep, as they were written, the texts of a row that has them masked; there may be none.

    Args:
        ticket_id: the name of the column with the ticket's id.
    """
    texts = func.unnest(_CONCEALED_FIELDS, param("concealed_texts", ARRAY(Text))).table_valued(
        column("field", Text), column("text", Text), name="texts"
    )
    texts = texts.render_derived()
    values = {"resource_id": row.c.id, "field": texts.c.field, "ticket_id": row.c[ticket_id], "text": texts.c.text}
    rows = select(*values.values()).select_from(row.join(texts, true()))
    return pg_insert(concealed_texts).from_select(list(values), rows)


def _await_order(created: CTE) -> CTE:
    """A row for what the Order Service will tell, where the ticket is about an order."""
    return _awaited(created, created.c.created_at).cte("awaited")


def _awaited(ticket: CTE, due: ColumnElement[Any]) -> Insert:
    values = {
        "ticket_id": ticket.c.id,
        "order_id": ticket.c.order_id,
        "state": literal_column("'pending'"),
        "next_try_at": due,
        "attempts": literal_column("0"),
    }
    rows = select(*values.values()).where(ticket.c.order_id.is_not(None))
    return pg_insert(ticket_orders).from_select(list(values), rows)


def _returning_ticket(ticket: CTE, *others: CTE, sharing: Sharing = Sharing.NONE) -> Statement:
    fields = select(*(ticket.c[name] for name in Ticket._fields))
    return compiled(fields.add_cte(_record_events(ticket, _NOT_INTERNAL), *others), sharing=sharing)


def _update_ticket(events_added: ColumnElement[int]) -> ReturningUpdate[Any]:
    total = func.cardinality(param("draft_event_id", ARRAY(Uuid)))
    attended = param("attended", Boolean)
    resolved: ColumnElement[bool] = text("new_status") == literal_column(f"'{Status.RESOLVED}'", Text)
    return (
        update(tickets)
        .where(tickets.c.id == uuid("ticket_id"))
        .values(
            status=text("new_status"),
            assigned_to=uuid("new_assigned_to"),
            resolved_at=moment("new_resolved_at"),
            resolution_notes=text("new_resolution_notes"),
            updated_at=moment("new_updated_at"),
            version=param("new_version", Integer),
            event_count=tickets.c.event_count + events_added,
            history_count=tickets.c.history_count + total,
            unattended_since=case((attended, moment("now")), else_=tickets.c.unattended_since),
            flagged_at=case((attended, null()), else_=tickets.c.flagged_at),
            quiet_since=case((resolved, moment("now")), else_=null()),
        )
        .returning(*tickets.c)
    )


_AS_READ = tickets.c.version == param("version", Integer)


def _change_ticket(*guards: ColumnElement[bool]) -> Statement:
    """Args: guards: what must hold beside the version, of the ticket as it is when it is locked."""
    total = func.cardinality(param("draft_event_id", ARRAY(Uuid)))
    changed = _update_ticket(total).where(_AS_READ, *guards).cte("changed")
    return _returning_ticket(changed)


def _locked_as_read() -> CTE:
    """The ticket's lock, or no row where the ticket is at another version than was read."""
    return select(tickets.c.id).where(tickets.c.id == uuid("ticket_id"), _AS_READ).with_for_update().cte("locked")


def _any_row_of(guard: CTE) -> ColumnElement[bool]:
    return select(literal_column("1")).select_from(guard).exists()


def _resolve_ticket() -> Statement:
    """A change that replaces the notes: what was found in the earlier ones goes, and what they were."""
    total = func.cardinality(param("draft_event_id", ARRAY(Uuid)))
    changed = _update_ticket(total).where(_AS_READ).values(findings=param("findings", JSONB)).cte("changed")
    replacing = _conceal(changed, "id")
    replaced = replacing.on_conflict_do_update(
        constraint=concealed_texts.primary_key, set_={"text": replacing.excluded.text}
    )
    notes: ColumnElement[str] = literal_column("'resolution_notes'", Text)
    # One row can't be changed twice in a statement: those that are replaced are not forgotten.
    forgotten = delete(concealed_texts).where(
        concealed_texts.c.resource_id == changed.c.id,
        concealed_texts.c.field == notes,
        notes != all_(_CONCEALED_FIELDS),
    )
    return _returning_ticket(changed, replaced.cte("concealed"), forgotten.cte("forgotten"))


def _add_comment(*, keyed: bool) -> Statement:
    """Lock the ticket at the version that was read, take the key, move the counts, add comment and events."""
    is_internal = param("is_internal", Boolean)
    source = _locked_as_read()
    if keyed:
        source = _claim_key("comment_id", source)
    total = func.cardinality(param("draft_event_id", ARRAY(Uuid)))
    events_added = case((is_internal, literal_column("0", Integer)), else_=total)
    # The lock's row (or the key's) is the guard: without it nothing below happens.
    changed = _update_ticket(events_added).where(_any_row_of(source)).cte("changed")
    values = {
        "id": uuid("comment_id"),
        "ticket_id": changed.c.id,
        "user_id": uuid("actor_id"),
        "comment": text("comment"),
        "is_internal": is_internal,
        "created_at": moment("now"),
        "author_role": text("actor_role"),
        "findings": param("findings", JSONB),
    }
    added = (
        insert(comments).from_select(list(values), select(*values.values())).returning(*COMMENT_COLUMNS).cte("added")
    )
    fields = select(*(added.c[name] for name in Comment._fields))
    concealed = _conceal(added, "ticket_id").cte("concealed")
    sharing = Sharing.NONE if keyed else Sharing.WRITES
    return compiled(fields.add_cte(_record_events(changed, is_internal), concealed), sharing=sharing)


def _noted() -> CTE:
    """The ticket at the version that was read, with room in its history for entries that are no events."""
    return (
        update(tickets)
        .where(tickets.c.id == uuid("ticket_id"), _AS_READ)
        .values(history_count=tickets.c.history_count + func.cardinality(param("draft_event_id", ARRAY(Uuid))))
        .returning(*tickets.c)
        .cte("noted")
    )


def _as_written(row: FromClause, field: str) -> ColumnElement[Any]:
    original = select(concealed_texts.c.text).where(
        concealed_texts.c.resource_id == row.c.id, concealed_texts.c.field == literal_column(f"'{field}'", Text)
    )
    return func.coalesce(original.scalar_subquery(), row.c[field])


def _revealed(row: FromClause, fields: Sequence[str], texts: Collection[str]) -> Select[Any]:
    return select(*(_as_written(row, name) if name in texts else row.c[name] for name in fields))


def _reveal_ticket() -> Statement:
    """Note in the history that somebody looks, and return the ticket with its texts as they were written."""
    noted = _noted()
    fields = _revealed(noted, Ticket._fields, ("subject", "description", "resolution_notes"))
    return compiled(fields.add_cte(_record_events(noted, _INTERNAL)))


def _reveal_comment() -> Statement:
    """The same for one of the ticket's comments. There must be such a one: the entry is written anyhow."""
    noted = _noted()
    fields = _revealed(comments, Comment._fields, ("comment",))
    fields = fields.join(noted, comments.c.ticket_id == noted.c.id).where(comments.c.id == uuid("comment_id"))
    return compiled(fields.add_cte(_record_events(noted, _INTERNAL)))


def _rate_ticket() -> Statement:
    """Lock the ticket at the version that was read, put its feedback in the place of what was read, add the event.

    The ticket's row changes in its counts alone.
    """
    new = pg_insert(feedback).from_select(list(Feedback._fields), _feedback_values().select_from(_locked_as_read()))
    replaced = {each.name: new.excluded[each.name] for each in FEEDBACK_COLUMNS if not each.primary_key}
    rated = (
        new.on_conflict_do_update(constraint=feedback.primary_key, set_=replaced, where=_given_as_read())
        .returning(*FEEDBACK_COLUMNS)
        .cte("rated")
    )
    total = func.cardinality(param("draft_event_id", ARRAY(Uuid)))
    counted = (
        update(tickets)
        .where(tickets.c.id == uuid("ticket_id"), _any_row_of(rated))
        .values(event_count=tickets.c.event_count + total, history_count=tickets.c.history_count + total)
        .returning(*tickets.c)
        .cte("counted")
    )
    fields = select(*(rated.c[name] for name in Feedback._fields))
    return compiled(fields.add_cte(_record_events(counted, _NOT_INTERNAL)))


def _feedback_values() -> Select[Any]:
    return select(*(param(each.name, each.type) for each in FEEDBACK_COLUMNS))


def _given_as_read() -> ColumnElement[bool]:
    """Whether the feedback, once it is locked, is what was read; never where there was none to be read."""
    return and_(
        feedback.c.rating == param("given_rating", Integer),
        feedback.c.remark.is_not_distinct_from(text("given_remark")),
        feedback.c.rated_at == moment("given_rated_at"),
    )


_RESOLVED: ColumnElement[bool] = tickets.c.status == literal_column(f"'{Status.RESOLVED}'", Text)
# While others comment on it a ticket keeps its version, but it is quiet no longer.
_STILL_QUIET = _RESOLVED & (moment("quiet_before") >= QUIET_SINCE)

CREATE_TICKET = _create_ticket(keyed=False)
CREATE_TICKET_ONCE = _create_ticket(keyed=True)
CHANGE_TICKET = _change_ticket()._replace(sharing=Sharing.WRITES)
# The same, for a change that gives the ticket to somebody: the trigger locks the agent too.
ASSIGN_TICKET = CHANGE_TICKET._replace(sharing=Sharing.NONE)
CLOSE_QUIET_TICKET = _change_ticket(_STILL_QUIET)
RATE_TICKET = _rate_ticket()
RESOLVE_TICKET = _resolve_ticket()._replace(sharing=Sharing.WRITES)
ADD_COMMENT = _add_comment(keyed=False)
ADD_COMMENT_ONCE = _add_comment(keyed=True)
REVEAL_TICKET = _reveal_ticket()
REVEAL_COMMENT = _reveal_comment()


# --- Reads ------------------------------------------------------------------------------------------------------------

GET_TICKET = compiled(select(*TICKET_COLUMNS).where(tickets.c.id == uuid("ticket_id")), sharing=Sharing.READS)
# Works, and finds nothing, as soon as the schema is in place.
PROBE = compiled(select(*TICKET_COLUMNS).where(literal_column("false", Boolean)))
GET_COMMENT = compiled(select(*COMMENT_COLUMNS).where(comments.c.id == uuid("comment_id")), sharing=Sharing.READS)
_OF_FEEDBACK = select(*FEEDBACK_COLUMNS).where(feedback.c.ticket_id == uuid("ticket_id"))
GET_FEEDBACK = compiled(_OF_FEEDBACK, sharing=Sharing.READS)

_LIMIT = param("limit", Integer)
_AFTER_RANK = param("after_rank", SmallInteger)
_AFTER_TIME = tuple_(moment("after_created_at"), uuid("after_id"))
_BEFORE = _AFTER_TIME
_Columns = ReadOnlyColumnCollection[str, Any]
_TRIAGE = (tickets.c.triage_rank, tickets.c.created_at, tickets.c.id)


def _among(column_: ColumnElement[Any], name: str, type_: type[TypeEngine[Any]]) -> ColumnElement[bool]:
    return column_ == any_(param(name, ARRAY(type_)))


_EVERY_STATUS = tuple(Status)


def _per_status(
    order: Callable[[_Columns], list[ColumnElement[Any]]],
    *parts: Select[Any],
    statuses: Sequence[Status] = _EVERY_STATUS,
) -> Statement:
    """Merge an ordered index range per status and part, so that a page reads about a page of rows, wherever it lies.

    A status that was not asked for costs nothing: its branch is cut off by a condition without columns.

    Args:
        statuses: those in which there can be such tickets.
    """
    rows = [_branch(part, status) for status in statuses for part in parts]
    branches = [row.order_by(*order(tickets.c)).limit(_LIMIT).subquery() for row in rows]
    merged = union_all(*(select(branch) for branch in branches)).subquery("merged")
    fields = select(*(merged.c[name] for name in Ticket._fields))
    return compiled(fields.order_by(*order(merged.c)).limit(_LIMIT), sharing=Sharing.READS)


def _branch(rows: Select[Any], status: Status) -> Select[Any]:
    word: ColumnElement[str] = literal_column(f"'{status}'", Text)
    return rows.where(tickets.c.status == word, word == any_(param("statuses", ARRAY(Text))))


def _triage_order(columns: _Columns) -> list[ColumnElement[Any]]:
    return [columns["triage_rank"], columns["created_at"], columns["id"]]


def _newest_first(columns: _Columns) -> list[ColumnElement[Any]]:
    return [columns["created_at"].desc(), columns["id"].desc()]


def _filtered(*conditions: ColumnElement[bool]) -> Select[Any]:
    """Tickets in triage order after a position, under the filters that any index carries along."""
    return select(*TICKET_COLUMNS, tickets.c.triage_rank).where(
        *conditions,
        _among(tickets.c.triage_rank, "ranks", SmallInteger),
        tickets.c.created_at >= moment("created_after"),
        tickets.c.created_at < moment("created_before"),
    )


def _triage_list(*conditions: ColumnElement[bool], statuses: Sequence[Status] = _EVERY_STATUS) -> Statement:
    """Tickets in triage order after a position: those as urgent as the one there, and all that are less urgent.

    As one condition, (rank, time, id) > (…), the two would be read from the beginning: where a rank is also compared
    with a list, PostgreSQL starts at each of the list's values, and the position only filters what it meets. The first
    part needs no `created_after`: no position lies before it.
    """
    as_urgent = select(*TICKET_COLUMNS, tickets.c.triage_rank).where(
        *conditions,
        tickets.c.triage_rank == _AFTER_RANK,
        tuple_(tickets.c.created_at, tickets.c.id) > _AFTER_TIME,
        tickets.c.created_at < moment("created_before"),
    )
    less_urgent = _filtered(*conditions, tickets.c.triage_rank > _AFTER_RANK)
    return _per_status(_triage_order, as_urgent, less_urgent, statuses=statuses)


def _optional(column_: ColumnElement[Any], parameter: BindParameter[Any]) -> ColumnElement[bool]:
    return parameter.is_(None) | (column_ == parameter)


_UNASSIGNED = tickets.c.assigned_to.is_(None)

LIST_TICKETS = _triage_list()
LIST_UNASSIGNED_TICKETS = _triage_list(_UNASSIGNED)
LIST_TICKETS_OF_ASSIGNEE = _triage_list(tickets.c.assigned_to == uuid("assigned_to"))
LIST_TICKETS_OF_USER = _triage_list(
    tickets.c.user_id == uuid("user_id"),
    _optional(tickets.c.assigned_to, uuid("assigned_to")),
    ~param("unassigned", Boolean) | _UNASSIGNED,
)
LIST_MY_TICKETS = _per_status(
    _newest_first,
    select(*TICKET_COLUMNS).where(
        tickets.c.user_id == uuid("user_id"), tuple_(tickets.c.created_at, tickets.c.id) < _BEFORE
    ),
)

# What belongs to a ticket is there only for who may see the ticket: its `owner`, or, where that is null, everybody.
# PostgreSQL looks at it once, before the first row, and by its id, whatever it knows of users: some have thousands.
_OWNER = select(tickets.c.user_id).where(tickets.c.id == uuid("ticket_id")).scalar_subquery()
_IS_SEEN = uuid("owner").is_(None) | (uuid("owner") == _OWNER)

LIST_COMMENTS = compiled(
    select(*COMMENT_COLUMNS)
    .where(
        comments.c.ticket_id == uuid("ticket_id"),
        _IS_SEEN,
        param("with_internal", Boolean) | ~comments.c.is_internal,
        tuple_(comments.c.created_at, comments.c.id) < _BEFORE,
    )
    .order_by(*_newest_first(comments.c))
    .limit(_LIMIT),
    sharing=Sharing.READS,
)

LIST_QUIET_TICKETS = compiled(
    select(QUIET_SINCE, *TICKET_COLUMNS)
    .where(_STILL_QUIET, tuple_(QUIET_SINCE, tickets.c.id) > tuple_(moment("after_time"), uuid("after_id")))
    .order_by(QUIET_SINCE, tickets.c.id)
    .limit(_LIMIT)
)
QUIET_LONGEST = compiled(select(func.min(QUIET_SINCE)).where(_STILL_QUIET))

HISTORY_COLUMNS = [events.c[name] for name in HistoryEntry._fields]


def _history(*conditions: ColumnElement[bool]) -> Statement:
    of_ticket = events.c.ticket_id == uuid("ticket_id")
    rows = select(*HISTORY_COLUMNS).where(of_ticket, _IS_SEEN, events.c.position > _AFTER_NUMBER, *conditions)
    return compiled(rows.order_by(events.c.position).limit(_LIMIT), sharing=Sharing.READS)


_AFTER_NUMBER = param("after_number", Integer)
LIST_HISTORY = _history()
# After a sequence number, which internal notes don't have: a position would tell how many of them lie before it. No
# position is below its sequence number, so that the same index range answers both.
LIST_PUBLIC_HISTORY = _history(~events.c.is_internal, events.c.sequence > _AFTER_NUMBER)


# --- The relay --------------------------------------------------------------------------------------------------------

_UNPUBLISHED = events.c.published_at.is_(None) & ~events.c.is_internal
_OUTBOUND = [*HISTORY_COLUMNS, events.c.ticket]
_shards = func.unnest(param("shards", ARRAY(Integer))).table_valued(column("shard", Integer), name="shards")
_shards = _shards.render_derived()


def _oldest_per_shard(columns: Sequence[ColumnElement[Any]], *conditions: ColumnElement[bool]) -> LateralFromClause:
    """The oldest unsent rows of each of the shards, each read from its own range of the index.

    Oldest by number, and so a ticket's in the order of their sequence: both are given out under the ticket's row lock.
    """
    rows = select(*columns).where(_UNPUBLISHED, _shards.c.shard == SHARD, *conditions)
    return rows.order_by(events.c.row_no).limit(_LIMIT).lateral("oldest")


def _mark_and_list() -> Statement:
    """Mark `event_ids` as published, and list up to `limit` events of each of the shards, of no ticket in `except`.

    One statement, as it is one round trip; its two halves see the same rows, so that the list leaves the marked out
    by their ids.
    """
    arrived = param("event_ids", ARRAY(Uuid))
    marked = update(events).where(events.c.id == any_(arrived)).values(published_at=moment("now")).cte("marked")
    # Asked so, PostgreSQL hashes them; compared one by one, thousands of tickets that fail cost three times as long.
    others = events.c.ticket_id.not_in(select(func.unnest(param("except", ARRAY(Uuid)))))
    oldest = _oldest_per_shard(_OUTBOUND, others, events.c.id != all_(arrived))
    return compiled(select(_shards.c.shard, *oldest.c).select_from(_shards.join(oldest, true())).add_cte(marked))


def _measure_backlog() -> Statement:
    """How many events are unsent, counted up to `most`, and since when the oldest is, by the first of each shard."""
    some: Select[Any] = select(literal_column("1")).select_from(events).where(_UNPUBLISHED)
    oldest = _oldest_per_shard([events.c.occurred_at])
    first = select(func.min(oldest.c.occurred_at)).select_from(_shards.join(oldest, true()))
    return compiled(
        select(
            select(func.count()).select_from(some.limit(param("most", Integer)).subquery("some")).scalar_subquery(),
            first.scalar_subquery(),
        )
    )


MARK_AND_LIST_UNPUBLISHED = _mark_and_list()
MEASURE_BACKLOG = _measure_backlog()

_PUBLISHED = events.c.published_at.is_not(None)
_OF_TICKET = events.c.ticket_id == uuid("ticket_id")
_BETWEEN = (events.c.occurred_at >= moment("since")) & (events.c.occurred_at < moment("until"))


def _published(which: ColumnElement[bool]) -> Statement:
    """What was published already, oldest first, and so a ticket's in the order of their sequence."""
    return compiled(select(*_OUTBOUND).where(_PUBLISHED, which).order_by(events.c.row_no))


def _count_published(which: ColumnElement[bool]) -> Statement:
    """How many events those are, and of how many tickets."""
    return compiled(select(func.count(), func.count(events.c.ticket_id.distinct())).where(_PUBLISHED, which))


LIST_PUBLISHED_OF_TICKET, COUNT_PUBLISHED_OF_TICKET = _published(_OF_TICKET), _count_published(_OF_TICKET)
LIST_PUBLISHED_BETWEEN, COUNT_PUBLISHED_BETWEEN = _published(_BETWEEN), _count_published(_BETWEEN)


def _delete_old_events() -> Statement:
    """Of the next `limit` tickets by id, delete what is older than `before` in the history of those that are closed.

    Never what is still to be sent. `before_id` ends the walk: ids are ordered by the time at which they were made.
    Returns the last of these tickets, how many they are and how many events are gone.
    """
    walked = (
        select(tickets.c.id, tickets.c.status)
        .where(tickets.c.id > uuid("after_id"), tickets.c.id < uuid("before_id"))
        .order_by(tickets.c.id)
        .limit(_LIMIT)
        .cte("walked")
    )
    gone = (
        delete(events)
        .where(
            events.c.ticket_id == walked.c.id,
            walked.c.status == literal_column(f"'{Status.CLOSED}'", Text),
            events.c.occurred_at < moment("before"),
            _PUBLISHED | events.c.is_internal,
        )
        .returning(events.c.id)
        .cte("gone")
    )
    last = select(walked.c.id).order_by(walked.c.id.desc()).limit(literal_column("1")).scalar_subquery()
    counts = (select(func.count()).select_from(rows).scalar_subquery() for rows in (walked, gone))
    return compiled(select(last, *counts))


DELETE_OLD_EVENTS = _delete_old_events()


# --- Personal data ----------------------------------------------------------------------------------------------------

_ERASURE_COLUMNS = [erasures.c[name] for name in Erasure._fields]
_OF_USER = tickets.c.user_id == uuid("user_id")
_ONE: ColumnElement[int] = literal_column("1", Integer)
_ERASED: ColumnElement[str] = literal_column(f"'{ERASED}'", Text)
# Counted rather than added up: everybody who is at one erasure would wait for its row.
_ERASED_TICKETS = select(func.count()).select_from(tickets).where(tickets.c.user_id == erasures.c.id).scalar_subquery()


def _begin_erasure() -> Statement:
    """The user's erasure that is under way, or a new one."""
    values = {
        "id": uuid("pseudonym"),
        "user_id": uuid("user_id"),
        "requested_by": uuid("actor_id"),
        "requested_role": text("actor_role"),
        "requested_at": moment("now"),
        "erased_tickets": literal_column("0"),
    }
    new = pg_insert(erasures).values(values)
    # Changes nothing; an INSERT that does nothing returns nothing.
    under_way = new.on_conflict_do_update(constraint="erasures_user_id_key", set_={"user_id": new.excluded.user_id})
    return compiled(under_way.returning(*_ERASURE_COLUMNS))


def _without(owner: ColumnElement[Any]) -> ColumnElement[Any]:
    """The pseudonym where the owner's id stood; everybody else's id stays."""
    return case((owner == uuid("erased_user_id"), uuid("pseudonym")), else_=owner)


def _erase_ticket() -> Statement:
    """Erase one ticket of `erased_user_id` and all that belongs to it, in rows that nobody else is just writing.

    Nothing happens where somebody is, or has since `history_count` was read: this statement would not see what they
    added; nor where the erasure is finished: what the user has written since then is theirs. Nobody is waited for: a
    relay marks events in an order of its own, and each would have what the other wants.
    """
    locked = (
        select(tickets.c.id)
        .where(
            tickets.c.id == uuid("ticket_id"),
            tickets.c.user_id == uuid("erased_user_id"),
            tickets.c.history_count == param("history_count", Integer),
            select(literal_column("1"))
            .select_from(erasures)
            .where(erasures.c.id == uuid("pseudonym"), erasures.c.finished_at.is_(None))
            .exists(),
        )
        .with_for_update(key_share=True, skip_locked=True)
        .cte("locked")
    )
    entries = select(events.c.id).where(events.c.ticket_id == uuid("ticket_id"))
    held = entries.with_for_update(key_share=True, skip_locked=True).cte("held")
    counts = (select(func.count()).select_from(rows).scalar_subquery() for rows in (held, entries.subquery("entries")))
    free = select(locked.c.id).where(next(counts) == next(counts)).cte("free")
    erased = (
        update(tickets)
        .where(tickets.c.id == free.c.id)
        .values(
            user_id=uuid("pseudonym"),
            order_id=null(),
            subject=_ERASED,
            description=_ERASED,
            resolution_notes=case((tickets.c.resolution_notes.is_not(None), _ERASED)),
            findings=null(),
            updated_at=moment("now"),
            version=tickets.c.version + _ONE,
            event_count=tickets.c.event_count + _ONE,
            history_count=tickets.c.history_count + _ONE,
        )
        .returning(*tickets.c)
        .cte("erased")
    )
    return _returning_ticket(erased, *_erase_parts(free))


def _erase_parts(free: CTE) -> list[CTE]:
    in_snapshot = func.jsonb_build_object(
        literal_column("'user_id'"), uuid("pseudonym"), literal_column("'subject'"), _ERASED,
        literal_column("'order_id'"), null(),
    )  # fmt: skip
    parts = {
        "comments_erased": update(comments)
        .where(comments.c.ticket_id == free.c.id)
        .values(comment=_ERASED, findings=null(), user_id=_without(comments.c.user_id)),
        "entries_erased": update(events)
        .where(events.c.ticket_id == free.c.id)
        .values(actor_id=_without(events.c.actor_id), ticket=events.c.ticket.op("||")(in_snapshot)),
        "remark_erased": update(feedback)
        .where(feedback.c.ticket_id == free.c.id)
        .values(remark=null(), findings=null()),
        "order_gone": delete(ticket_orders).where(ticket_orders.c.ticket_id == free.c.id),
        "concealed_gone": delete(concealed_texts).where(concealed_texts.c.ticket_id == free.c.id),
    }
    return [part.cte(name) for name, part in parts.items()]


def _finish_erasure() -> Statement:
    """Forget whose erasure it was, and the user's idempotency keys, where no ticket is left; else nothing happens."""
    left = select(literal_column("1")).select_from(tickets).where(tickets.c.user_id == erasures.c.user_id).exists()
    finished = (
        update(erasures)
        .where(erasures.c.id == uuid("pseudonym"), erasures.c.finished_at.is_(None), ~left)
        .values(user_id=null(), finished_at=moment("now"), erased_tickets=_ERASED_TICKETS)
        .returning(erasures.c.id)
        .cte("finished")
    )
    forgotten = (
        delete(idempotency_keys)
        .where(
            idempotency_keys.c.caller_id == uuid("user_id"),
            select(literal_column("1")).select_from(finished).exists(),
        )
        .cte("forgotten")
    )
    return compiled(select(finished.c.id).add_cte(forgotten))


BEGIN_ERASURE = _begin_erasure()
LIST_ERASABLE = compiled(select(*(tickets.c[name] for name in Erasable._fields)).where(_OF_USER).limit(_LIMIT))
ERASE_TICKET = _erase_ticket()
FINISH_ERASURE = _finish_erasure()
GET_PROGRESS = compiled(
    select(erasures.c.finished_at.is_not(None), _ERASED_TICKETS).where(erasures.c.id == uuid("pseudonym"))
)
_UNFINISHED = erasures.c.finished_at.is_(None)
LIST_UNFINISHED_ERASURES = compiled(
    select(*_ERASURE_COLUMNS)
    .where(_UNFINISHED, tuple_(erasures.c.requested_at, erasures.c.id) > _AFTER_TIME)
    .order_by(erasures.c.requested_at, erasures.c.id)
    .limit(_LIMIT)
)
OLDEST_UNFINISHED_ERASURE = compiled(select(func.min(erasures.c.requested_at)).where(_UNFINISHED))

_TOLD = events.c.erased_user_id.is_not(None) & _PUBLISHED


def _forget_erased_users() -> Statement:
    """Take the user's id from up to `limit` events that have told it."""
    told = select(events.c.id).where(_TOLD).limit(_LIMIT).with_for_update(key_share=True, skip_locked=True).cte("told")
    forgotten = update(events).where(events.c.id == told.c.id).values(erased_user_id=null())
    return compiled(forgotten.returning(events.c.id))


FORGET_ERASED_USERS = _forget_erased_users()
OLDEST_TOLD_ERASURE = compiled(select(func.min(events.c.published_at)).where(_TOLD))


def _note_export() -> Statement:
    """Write `event_ids`, one each, into the histories of those `ticket_ids` that are still the user's."""
    pairs = func.unnest(param("ticket_ids", ARRAY(Uuid)), param("event_ids", ARRAY(Uuid))).table_valued(
        column("ticket_id", Uuid), column("event_id", Uuid), name="pairs"
    )
    pairs = pairs.render_derived()
    # In one order, so that two exports don't wait for each other in a circle.
    locked = (
        select(tickets.c.id)
        .where(_among(tickets.c.id, "ticket_ids", Uuid), _OF_USER)
        .order_by(tickets.c.id)
        .with_for_update(key_share=True)
        .cte("locked")
    )
    noted = (
        update(tickets)
        .where(tickets.c.id == locked.c.id)
        .values(history_count=tickets.c.history_count + _ONE)
        .returning(tickets.c.id, tickets.c.history_count)
        .cte("noted")
    )
    values = {
        "id": pairs.c.event_id,
        "ticket_id": noted.c.id,
        "position": noted.c.history_count,
        "change_id": uuid("change_id"),
        "event_type": text("event_type"),
        "occurred_at": moment("now"),
        "actor_id": uuid("actor_id"),
        "actor_role": text("actor_role"),
        "is_internal": literal_column("true"),
    }
    rows = select(*values.values()).select_from(noted.join(pairs, pairs.c.ticket_id == noted.c.id))
    return compiled(insert(events).from_select(list(values), rows).returning(events.c.id))


NOTE_EXPORT = _note_export()
LIST_TICKETS_TO_EXPORT = compiled(
    select(tickets.c.id).where(_OF_USER, tickets.c.id > uuid("after_id")).order_by(tickets.c.id).limit(_LIMIT)
)
ORDER_COLUMNS = [ticket_orders.c[name] for name in ("state", "order_id", "snapshot", "fetched_at")]
# Somebody may have thousands of tickets. Which they are the index alone tells; what is on them is read of those that a
# page has room for. Not materialized, PostgreSQL would look for them among all tickets, in the order of the ids.
_page = select(tickets.c.id).where(_OF_USER, tickets.c.id > uuid("after_id")).order_by(tickets.c.id).limit(_LIMIT)
_page_of_user = _page.cte("page").prefix_with("MATERIALIZED")
EXPORT_TICKETS = compiled(
    select(*TICKET_COLUMNS, *FEEDBACK_COLUMNS, *ORDER_COLUMNS)
    .select_from(
        _page_of_user.join(tickets, tickets.c.id == _page_of_user.c.id)
        .outerjoin(feedback, feedback.c.ticket_id == tickets.c.id)
        .outerjoin(ticket_orders, ticket_orders.c.ticket_id == tickets.c.id)
    )
    .order_by(tickets.c.id)
)


# The user's tickets from the one on which the page before ended; of those behind it everything is to come. In order, so
# that no more of them are looked at than it takes to fill a page.
_owned = select(tickets.c.id).where(_OF_USER, tickets.c.id >= uuid("after_ticket")).order_by(tickets.c.id).cte("owned")
_owned = _owned.prefix_with("MATERIALIZED")
_IS_LATER = _owned.c.id > uuid("after_ticket")
_FROM_BEGINNING: ColumnElement[Any] = literal_column("'-infinity'", Moment)


def _ticket_by_ticket(part: Select[Any], *order: ColumnElement[Any]) -> Statement:
    """Rows of the user's tickets, each ticket's in their order.

    Args:
        part: the rows of one ticket, from where the page before ended.
    """
    rows = part.correlate(_owned).order_by(*order).limit(_LIMIT).lateral("part")
    found = select(*rows.c).select_from(_owned.join(rows, true()))
    return compiled(found.order_by(_owned.c.id, *(rows.c[str(each.key)] for each in order)).limit(_LIMIT))


EXPORT_COMMENTS = _ticket_by_ticket(
    select(*COMMENT_COLUMNS).where(
        comments.c.ticket_id == _owned.c.id,
        ~comments.c.is_internal,
        tuple_(comments.c.created_at, comments.c.id)
        > tuple_(case((_IS_LATER, _FROM_BEGINNING), else_=moment("after_created_at")), uuid("after_id")),
    ),
    comments.c.created_at,
    comments.c.id,
)
EXPORT_HISTORY = _ticket_by_ticket(
    select(*HISTORY_COLUMNS).where(
        events.c.ticket_id == _owned.c.id,
        ~events.c.is_internal,
        events.c.position > case((_IS_LATER, literal_column("0")), else_=_AFTER_NUMBER),
    ),
    events.c.position,
)


# --- Attention --------------------------------------------------------------------------------------------------------

_STATUSES_WITH_STAFF = sorted(ASSIGNABLE)
_WITH_STAFF = tickets.c.status.in_([literal_column(f"'{status}'", Text) for status in _STATUSES_WITH_STAFF])
_FLAGGED = tickets.c.flagged_at.is_not(None)


def _list_flagged_tickets() -> Statement:
    """Flagged tickets in triage order after a position, in two parts as `_triage_list` has them."""
    parts = [
        rows.order_by(*_TRIAGE).limit(_LIMIT).subquery()
        for rows in (
            select(*TICKET_COLUMNS, tickets.c.triage_rank).where(
                _FLAGGED,
                tickets.c.triage_rank == _AFTER_RANK,
                _among(_AFTER_RANK, "ranks", SmallInteger),
                tuple_(tickets.c.created_at, tickets.c.id) > _AFTER_TIME,
            ),
            select(*TICKET_COLUMNS, tickets.c.triage_rank).where(
                _FLAGGED, tickets.c.triage_rank > _AFTER_RANK, _among(tickets.c.triage_rank, "ranks", SmallInteger)
            ),
        )
    ]
    merged = union_all(*(select(part) for part in parts)).subquery("merged")
    fields = select(*(merged.c[name] for name in Ticket._fields))
    return compiled(fields.order_by(*_triage_order(merged.c)).limit(_LIMIT))


def _flag_ticket() -> Statement:
    """Flag a ticket, unless staff have done something with it since it was read, or somebody has flagged it."""
    flagged = (
        update(tickets)
        .where(
            tickets.c.id == uuid("ticket_id"),
            tickets.c.version == param("version", Integer),
            tickets.c.unattended_since == moment("unattended_since"),
            tickets.c.flagged_at.is_(None),
        )
        .values(
            flagged_at=moment("now"),
            event_count=tickets.c.event_count + literal_column("1", Integer),
            history_count=tickets.c.history_count + literal_column("1", Integer),
        )
        .returning(*tickets.c)
        .cte("flagged")
    )
    return _returning_ticket(flagged)


LIST_FLAGGED_TICKETS = _list_flagged_tickets()
# What somebody has to work on is little; the flagged ones among it are looked for. What they were done with keeps no
# flag, and can be thousands.
LIST_FLAGGED_TICKETS_OF_ASSIGNEE = _triage_list(
    tickets.c.assigned_to == uuid("assigned_to"), _FLAGGED, statuses=_STATUSES_WITH_STAFF
)
# The tickets of one priority that wait for staff since `last_due` or longer, who waits longest first.
LIST_UNATTENDED = compiled(
    select(*(tickets.c[name] for name in Unattended._fields))
    .where(
        _WITH_STAFF,
        tickets.c.flagged_at.is_(None),
        tickets.c.triage_rank == param("rank", SmallInteger),
        tickets.c.unattended_since <= moment("last_due"),
        tuple_(tickets.c.unattended_since, tickets.c.id) > tuple_(moment("after_since"), uuid("after_id")),
    )
    .order_by(tickets.c.unattended_since, tickets.c.id)
    .limit(_LIMIT)
)
FLAG_TICKET = _flag_ticket()


# --- The roster -------------------------------------------------------------------------------------------------------

_AGENT_FIELDS = Agent._fields[:-1]


def _held(agent: FromClause) -> LateralFromClause:
    """How many tickets an agent has: a count of some entries of an index, made once for each agent."""
    theirs = (tickets.c.assigned_to == agent.c.id) & _WITH_STAFF
    return select(func.count().label("open_tickets")).select_from(tickets).where(theirs).lateral("held")


def _agents(source: FromClause, held: LateralFromClause | None = None) -> Select[Any]:
    """The agents of a table or CTE, each with the number of their tickets."""
    theirs = _held(source) if held is None else held
    return select(*(source.c[name] for name in _AGENT_FIELDS), theirs.c.open_tickets).select_from(
        source.join(theirs, true())
    )


def _available_at(now: BindParameter[Any]) -> ColumnElement[str]:
    """As `Agent.at` says it."""
    available: ColumnElement[str] = literal_column(f"'{Availability.AVAILABLE}'", Text)
    return case((agents.c.away_until <= now, available), else_=agents.c.availability)


def _away_since() -> ColumnElement[bool]:
    """Who is away at `now`, and has been since `away_since` or longer."""
    away: ColumnElement[str] = literal_column(f"'{Availability.AWAY}'", Text)
    return (_available_at(moment("now")) == away) & (agents.c.availability_since <= moment("away_since"))


def _save_agent() -> Statement:
    """Put somebody onto the roster, available, or replace their entry; `updated_at` moves where that changes it."""
    entry: dict[str, ColumnElement[Any]] = {
        "display_name": text("display_name"),
        "role": text("role"),
        "tier": param("tier", Integer),
        "capacity": param("capacity", Integer),
        "active": param("active", Boolean),
    }
    values = {
        "id": uuid("agent_id"),
        **entry,
        "availability": literal_column(f"'{Availability.AVAILABLE}'"),
        "availability_since": moment("now"),
        "created_at": moment("now"),
        "updated_at": moment("now"),
    }
    saving = pg_insert(agents).from_select(list(values), select(*values.values()))
    new = {name: saving.excluded[name] for name in entry}
    same = tuple_(*(agents.c[name] for name in entry)) == tuple_(*new.values())
    updated_at = case((same, agents.c.updated_at), else_=saving.excluded.updated_at)
    saved = saving.on_conflict_do_update(
        constraint=agents.primary_key, set_={**new, "updated_at": updated_at}
    ).returning(*agents.c)
    return compiled(_agents(saved.cte("saved")))


def _change_availability() -> Statement:
    """Write an availability over the one that was read, unless it is another one meanwhile."""
    changed = (
        update(agents)
        .where(
            agents.c.id == uuid("agent_id"),
            agents.c.availability == text("availability"),
            agents.c.away_until.is_not_distinct_from(moment("away_until")),
            agents.c.availability_since == moment("availability_since"),
        )
        .values(
            availability=text("new_availability"),
            away_until=moment("new_away_until"),
            availability_since=moment("new_availability_since"),
            updated_at=moment("now"),
        )
        .returning(*agents.c)
    )
    return compiled(_agents(changed.cte("changed")))


def _list_willing_agents() -> Statement:
    """Those who take on work at `now` and can bear more, who can bear most first."""
    held = _held(agents)
    spare: ColumnElement[int] = agents.c.capacity - held.c.open_tickets
    available = _available_at(moment("now")) == literal_column(f"'{Availability.AVAILABLE}'", Text)
    rows = _agents(agents, held).where(agents.c.active, available, spare > literal_column("0", Integer))
    return compiled(rows.order_by(spare.desc(), agents.c.id).limit(_LIMIT))


def _tickets_of_away() -> Statement:
    """The tickets of those who are away for too long, in triage order after a position."""
    theirs = (
        select(tickets.c.id, tickets.c.assigned_to, *_TRIAGE[:2])
        .where(
            tickets.c.assigned_to == agents.c.id,
            _WITH_STAFF,
            tuple_(*_TRIAGE) > tuple_(_AFTER_RANK, moment("after_created_at"), uuid("after_id")),
        )
        .order_by(*_TRIAGE)
        # Where each is looked for by itself, PostgreSQL can't think of reading all tickets.
        .limit(_LIMIT)
        .lateral("theirs")
    )
    rows = select(theirs).select_from(agents.join(theirs, true())).where(_away_since())
    return compiled(rows.order_by(theirs.c.triage_rank, theirs.c.created_at, theirs.c.id).limit(_LIMIT))


def _longest_away() -> Statement:
    """Since when they have been away who are away for too long and have tickets."""
    theirs = (tickets.c.assigned_to == agents.c.id) & _WITH_STAFF
    held: Select[Any] = select(literal_column("1")).select_from(tickets).where(theirs)
    return compiled(select(func.min(agents.c.availability_since)).where(_away_since(), held.exists()))


GET_AGENT = compiled(_agents(agents).where(agents.c.id == uuid("agent_id")))
LIST_AGENTS = compiled(
    _agents(agents)
    .where(
        agents.c.id > uuid("after_id"),
        param("with_inactive", Boolean) | agents.c.active,
        _among(_available_at(moment("now")), "availabilities", Text),
    )
    .order_by(agents.c.id)
    .limit(_LIMIT)
)
SAVE_AGENT = _save_agent()
CHANGE_AVAILABILITY = _change_availability()
LIST_WILLING_AGENTS = _list_willing_agents()
LIST_TICKETS_OF_AWAY = _tickets_of_away()
LONGEST_AWAY = _longest_away()


# --- The orders that tickets are about --------------------------------------------------------------------------------

_AWAITED = ticket_orders.c.state == literal_column("'pending'", Text)
_OF_ORDER = (ticket_orders.c.ticket_id == uuid("ticket_id")) & (ticket_orders.c.order_id == uuid("order_id"))
_OF_THE_TICKET = (ticket_orders.c.ticket_id == tickets.c.id) & (ticket_orders.c.order_id == tickets.c.order_id)

GET_TICKET_ORDER = compiled(
    select(
        *(tickets.c[name] for name in ("id", "user_id", "order_id")),
        *(ticket_orders.c[name] for name in ("state", "snapshot", "fetched_at")),
    )
    .select_from(tickets.outerjoin(ticket_orders, _OF_THE_TICKET))
    .where(tickets.c.id == uuid("ticket_id"))
)


def _await_order_of() -> Statement:
    """A row for the order of a ticket that has none yet; not where an erasure comes first, which waits for nobody."""
    ticket = select(tickets.c.id, tickets.c.order_id).where(
        tickets.c.id == uuid("ticket_id"), tickets.c.order_id == uuid("order_id")
    )
    awaited = _awaited(ticket.with_for_update(read=True).cte("locked"), moment("now"))
    awaited = awaited.on_conflict_do_nothing(constraint=ticket_orders.primary_key)
    return compiled(awaited.returning(ticket_orders.c.ticket_id))


def _store_order() -> Statement:
    """Keep what the Order Service said, unless it has said something since `asked_at`.

    An order that it once knew stays as it was when it says that it does not know it.
    """
    known: ColumnElement[bool] = text("new_state") == literal_column("'known'", Text)
    newest = ticket_orders.c.fetched_at.is_(None) | (ticket_orders.c.fetched_at < moment("asked_at"))
    return compiled(
        update(ticket_orders)
        .where(_OF_ORDER, newest, known | (ticket_orders.c.state != literal_column("'known'", Text)))
        .values(state=text("new_state"), snapshot=param("snapshot", JSONB), fetched_at=moment("now"))
        .returning(ticket_orders.c.ticket_id)
    )


def _claim_missing_orders() -> Statement:
    """Lease the `limit` orders that have been due longest, and tell which; those that others lock are passed over.

    They are found again by where they lie: not knowing the limit, PostgreSQL would read the whole table.
    """
    place: ColumnElement[Any] = literal_column("ticket_orders.ctid")
    longest_due = (
        select(place)
        .select_from(ticket_orders)
        .where(_AWAITED, ticket_orders.c.next_try_at <= moment("due"))
        .order_by(ticket_orders.c.next_try_at)
        .limit(_LIMIT)
        .with_for_update(skip_locked=True)
    )
    is_among = place == any_(func.array(longest_due.scalar_subquery()))
    leased = update(ticket_orders).where(is_among, _AWAITED).values(next_try_at=moment("leased_until"))
    return compiled(leased.returning(*(ticket_orders.c[name] for name in ("ticket_id", "order_id", "attempts"))))


AWAIT_ORDER = _await_order_of()
STORE_ORDER = _store_order()
CLAIM_MISSING_ORDERS = _claim_missing_orders()
PUT_OFF_ORDER = compiled(
    update(ticket_orders)
    .where(_OF_ORDER, _AWAITED)
    .values(next_try_at=moment("next_try_at"), attempts=param("attempts", Integer))
    .returning(ticket_orders.c.ticket_id)
)
OLDEST_MISSING_ORDER = compiled(
    select(func.min(ticket_orders.c.next_try_at)).where(_AWAITED, ticket_orders.c.next_try_at <= moment("due"))
)
