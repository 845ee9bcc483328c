"""What somebody does with their inbox: look at it, mark what was read, say what is not wanted, follow what arrives."""

from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

from server.db.database import Database
from server.db.statement import Statement
from server.domain.callers import Caller
from server.domain.paging import LAST, PageTokens, Position
from server.domain.validation import Fields
from server.notification import inbox_statements as statements
from server.notification.directory import StaffDirectory
from server.notification.feed import Feed
from server.notification.notification import Notification, Preferences, Standing
from server.notification.words import Channel, Type

E = TypeVar("E", bound=StrEnum)

MOST_IDS = 100
BATCH = 100
"""Notifications of a stream that are read at once."""
HEARTBEAT_SECONDS = 15.0
_NEWEST = 2**63 - 1
"""Above every number."""


class Collaborators(NamedTuple):
    """What the inbox works with; the clock tells UTC."""

    db: Database
    page_tokens: PageTokens
    clock: Callable[[], datetime]
    directory: StaffDirectory
    feed: Feed


class Page(NamedTuple):
    """Some notifications, the unread ones on all pages counted, and the token of the next page: empty on the last."""

    notifications: list[Notification]
    unread_count: int
    next_page_token: str


class Update(NamedTuple):
    """One message of a stream: a notification, or the unread count alone."""

    notification: Notification | None
    unread_count: int


async def list_notifications(
    on: Collaborators, caller: Caller, *, unread_only: bool, page_size: int, page_token: str
) -> Page:
    """The caller's notifications, newest first.

    Raises:
        InvalidFields: the page size or the page token is bad.
    """
    fields = Fields()
    size = fields.page_size(page_size)
    scope = repr(("ListNotifications", str(caller.id), unread_only))
    before = _before(on, fields, scope, page_token)
    fields.check()
    await on.directory.note(caller)
    statement = statements.LIST_UNREAD if unread_only else statements.LIST_NOTIFICATIONS
    # One more than the page holds tells whether there is a next page.
    values = {"caller_id": caller.id, "before": before, "limit": size + 1}
    standing, found = _inbox(await on.db.fetch_all(statement, values, tuple))
    if len(found) <= size:
        return Page(found, standing.unread_count, "")
    last = found[size - 1]
    token = on.page_tokens.seal(scope, Position(last.created_at, last.id, last.number))
    return Page(found[:size], standing.unread_count, token)


async def count_unread(on: Collaborators, caller: Caller) -> int:
    """How many of the caller's notifications are unread."""
    await on.directory.note(caller)
    return await on.db.fetch_one(statements.COUNT_UNREAD, {"caller_id": caller.id}, _number) or 0


async def mark_read(on: Collaborators, caller: Caller, ids: Sequence[str], up_to_id: str | None) -> int:
    """Mark those with these ids, or all up to one; returns how many are unread now.

    Raises:
        InvalidFields: an id is malformed, there are too many of them, or not just one of the two was given.
    """
    fields = Fields()
    statement, marked = _what_to_mark(fields, ids, up_to_id)
    fields.check()
    await on.directory.note(caller)
    values = {"caller_id": caller.id, "now": on.clock(), "marked": marked}
    return await on.db.fetch_one(statement, values, _number) or 0


async def get_preferences(on: Collaborators, caller: Caller) -> Preferences:
    """What the caller has muted."""
    await on.directory.note(caller)
    found = await on.db.fetch_one(statements.GET_PREFERENCES, {"caller_id": caller.id}, Preferences._make)
    return found or Preferences([], [])


async def set_preferences(
    on: Collaborators, caller: Caller, channels: Collection[str | None], types: Collection[str | None]
) -> Preferences:
    """Replace what the caller has muted; None stands for a channel or type that is unknown.

    Raises:
        InvalidFields: a channel or type is unknown.
    """
    fields = Fields()
    muted = Preferences(
        _chosen(fields, "muted_channels", channels, Channel), _chosen(fields, "muted_types", types, Type)
    )
    fields.check()
    await on.directory.note(caller)
    values = {"caller_id": caller.id, **muted._asdict()}
    return await on.db.fetch_one(statements.SET_PREFERENCES, values, Preferences._make) or muted


async def follow(on: Collaborators, caller: Caller, after_id: str | None) -> AsyncGenerator[Update, None]:
    """The unread count, then each notification as it arrives, for as long as the generator is asked.

    With `after_id` those that came after that one are told first. The count alone comes again when it has changed, and
    when nothing else was told for HEARTBEAT_SECONDS.

    Raises:
        InvalidFields: `after_id` is no notification of the caller.
        DependencyUnavailable: the database can't be reached, or could not be for a while.
    """
    after = _after(after_id)
    await on.directory.note(caller)
    with on.feed.watch(caller.id) as watcher:
        standing, told = await _begin(on, caller, after)
        watcher.has_seen(standing)
        yield Update(None, standing.unread_count)
        while True:
            while told >= standing.last_number and not await watcher.moved(HEARTBEAT_SECONDS):
                yield Update(None, standing.unread_count)
            known, (standing, batch) = standing, await _next_batch(on, caller, told)
            watcher.has_seen(standing)
            for notification in batch:
                yield Update(notification, standing.unread_count)
            if not batch and standing.unread_count != known.unread_count:
                yield Update(None, standing.unread_count)
            # What is not in the inbox has numbers too.
            told = batch[-1].number if len(batch) == BATCH else standing.last_number


async def _begin(on: Collaborators, caller: Caller, after: UUID | None) -> tuple[Standing, int]:
    """The caller's standing, and the number of the notification that was seen last."""
    values = {"caller_id": caller.id, "after_id": after}
    ((last_number, unread_count, number),) = await on.feed.read(statements.BEGIN, values)
    if after is not None and number is None:
        _refuse_after()
    return Standing(last_number, unread_count), last_number if after is None else number


async def _next_batch(on: Collaborators, caller: Caller, after: int) -> tuple[Standing, list[Notification]]:
    values = {"caller_id": caller.id, "after": after, "limit": BATCH}
    return _inbox(await on.feed.read(statements.FOLLOW, values))


def _inbox(rows: Sequence[tuple[Any, ...]]) -> tuple[Standing, list[Notification]]:
    """The rows of a page: each has the standing before the notification, and the only one of an empty page has none."""
    return Standing(*rows[0][:2]), [Notification._make(row[2:]) for row in rows if row[2] is not None]


def _number(row: tuple[Any, ...]) -> int:
    return int(row[0])


def _before(on: Collaborators, fields: Fields, scope: str, token: str) -> int:
    position = on.page_tokens.open(scope, token) if token else LAST._replace(number=_NEWEST)
    if position is None:
        fields.refuse("page_token", "must be a next_page_token of this caller's list with the same filters")
        return _NEWEST
    return position.number


def _what_to_mark(fields: Fields, ids: Sequence[str], up_to_id: str | None) -> tuple[Statement, object]:
    if bool(ids) == (up_to_id is not None):
        fields.refuse("notification_ids", "must be given, or up_to_id, and not both")
    if up_to_id is not None:
        return statements.MARK_READ_UP_TO, fields.uuid("up_to_id", up_to_id)
    if len(ids) > MOST_IDS:
        fields.refuse("notification_ids", f"must hold 1 to {MOST_IDS} ids; it has {len(ids)}")
    return statements.MARK_READ, [fields.uuid("notification_ids", text) for text in ids[:MOST_IDS]]


def _chosen(fields: Fields, field: str, words: Collection[str | None], kind: type[E]) -> list[str]:
    """Each that was named, once, in the order of their kind."""
    named = {fields.choice(field, word, kind) for word in set(words)}
    return [word for word in kind if word in named]


def _after(after_id: str | None) -> UUID | None:
    fields = Fields()
    after = None if after_id is None else fields.uuid("after_id", after_id)
    fields.check()
    return after


def _refuse_after() -> None:
    fields = Fields()
    fields.refuse("after_id", "must be the id of a notification in the caller's inbox")
    fields.check()
