"""The tables of the schema `notification_service`, with the indexes that its lists and its sender rest on.

The migrations create them; a test compares the two. No table refers to another by a foreign key: recipients are never
deleted, what belongs together is written in one transaction, and a mail may go before the notifications that it told.
"""

from enum import StrEnum

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)

from server.db.consumed_table import consumed_events
from server.domain.callers import STAFF, Role
from server.notification.schema import SCHEMA
from server.notification.words import Channel, EmailKind, EmailState, Priority, Rank, Status, Type

metadata = MetaData(schema=SCHEMA)

Moment = DateTime(timezone=True)
_NONE = text("'{}'::text[]")


def _one_of(column: str, values: type[StrEnum]) -> str:
    return f"{column} IN ({_listed(*values)})"


def _all_of(column: str, values: type[StrEnum]) -> str:
    return f"{column} <@ ARRAY[{_listed(*values)}]"


def _listed(*values: StrEnum) -> str:
    return ", ".join(repr(str(value)) for value in values)


# Everybody who was ever told something or is a member of the staff. Whoever gives out numbers holds the row's lock.
recipients = Table(
    "recipients",
    metadata,
    Column("user_id", Uuid, nullable=False),
    # The role in which a staff member was last seen, and when (kept to the hour); null for those who never were one.
    # Who is one no more has no role and the time when that was seen: no older event makes them one again.
    Column("role", Text),
    Column("last_seen_at", Moment),
    # The highest number among the recipient's notifications.
    Column("last_number", BigInteger, nullable=False, server_default=text("0")),
    # How many of the recipient's notifications are in the inbox and unread.
    Column("unread_count", Integer, nullable=False, server_default=text("0")),
    Column("muted_channels", ARRAY(Text), nullable=False, server_default=_NONE),
    Column("muted_types", ARRAY(Text), nullable=False, server_default=_NONE),
    PrimaryKeyConstraint("user_id", name="recipients_pkey"),
    CheckConstraint(_one_of("role", Role), name="recipients_role_known"),
    CheckConstraint(_all_of("muted_channels", Channel), name="recipients_muted_channels_known"),
    CheckConstraint(_all_of("muted_types", Type), name="recipients_muted_types_known"),
)
Index(
    "recipients_staff",
    recipients.c.last_seen_at,
    postgresql_where=text(f"role IN ({_listed(*sorted(STAFF))})"),
)

notifications = Table(
    "notifications",
    metadata,
    # A version 7 id made of `created_at`: what is older than a moment is a range of ids.
    Column("id", Uuid, nullable=False),
    Column("recipient_id", Uuid, nullable=False),
    # 1, 2, 3, … for each recipient, given out under the recipient's lock: gapless and in commit order, so whoever has
    # seen a number has missed none below it.
    Column("number", BigInteger, nullable=False),
    Column("change_id", Uuid, nullable=False),
    Column("event_id", Uuid, nullable=False),
    Column("ticket_id", Uuid, nullable=False),
    Column("type", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("priority", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("actor_id", Uuid, nullable=False),
    Column("actor_role", Text, nullable=False),
    Column("occurred_at", Moment, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("read_at", Moment),
    # False where the recipient had muted the inbox: the row is there for its e-mail alone.
    Column("in_inbox", Boolean, nullable=False),
    # The e-mail that tells it; null where the recipient had muted e-mail.
    Column("email_id", Uuid),
    PrimaryKeyConstraint("id", name="notifications_pkey"),
    UniqueConstraint("recipient_id", "change_id", name="notifications_recipient_id_change_id_key"),
    UniqueConstraint("recipient_id", "number", name="notifications_recipient_id_number_key"),
    CheckConstraint(_one_of("type", Type), name="notifications_type_known"),
    CheckConstraint(_one_of("priority", Priority), name="notifications_priority_known"),
    CheckConstraint(_one_of("status", Status), name="notifications_status_known"),
    CheckConstraint(_one_of("actor_role", Role), name="notifications_actor_role_known"),
    CheckConstraint("in_inbox OR email_id IS NOT NULL", name="notifications_reach_somebody"),
)
Index(
    "notifications_unread",
    notifications.c.recipient_id,
    notifications.c.number,
    postgresql_where=text("read_at IS NULL AND in_inbox"),
)
Index("notifications_by_ticket", notifications.c.ticket_id)
Index("notifications_by_email", notifications.c.email_id, postgresql_where=text("email_id IS NOT NULL"))

emails = Table(
    "emails",
    metadata,
    # A version 7 id made of `created_at`, as those of notifications.
    Column("id", Uuid, nullable=False),
    Column("recipient_id", Uuid, nullable=False),
    Column("kind", Text, nullable=False),
    Column("state", Text, nullable=False, server_default=text("'waiting'")),
    # Whether it takes more notifications: a digest does until a sender first takes it up.
    Column("is_open", Boolean, nullable=False),
    # Which of those that are due goes first; see `Rank`.
    Column("rank", SmallInteger, nullable=False),
    Column("due_at", Moment, nullable=False),
    # When a sender may next take it up: when it is due, after the pause that follows a failure, or when the lease of
    # the sender that has it runs out.
    Column("next_attempt_at", Moment, nullable=False),
    Column("lease_until", Moment),
    # Attempts that SMTP failed, and when the first of them did.
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    Column("first_failed_at", Moment),
    # Why it is not sent so far, was given up or dropped; names nobody.
    Column("last_error", Text),
    Column("created_at", Moment, nullable=False),
    Column("sent_at", Moment),
    PrimaryKeyConstraint("id", name="emails_pkey"),
    CheckConstraint(_one_of("kind", EmailKind), name="emails_kind_known"),
    CheckConstraint(_one_of("state", EmailState), name="emails_state_known"),
    CheckConstraint(f"rank BETWEEN {min(Rank)} AND {max(Rank)}", name="emails_rank_known"),
)
Index("emails_waiting", emails.c.rank, emails.c.next_attempt_at, postgresql_where=text("state = 'waiting'"))
Index("emails_dead", emails.c.id, postgresql_where=text("state = 'dead'"))
Index("emails_by_recipient", emails.c.recipient_id)
Index("emails_open", emails.c.recipient_id, unique=True, postgresql_where=text("is_open"))

# Tickets whose owner's data was erased, and the pseudonym that the owner has since. Kept for ever, which harms nobody:
# an older event of the ticket may come again whenever a dead letter is redriven or the topic is read anew.
erased_tickets = Table(
    "erased_tickets",
    metadata,
    Column("ticket_id", Uuid, nullable=False),
    Column("pseudonym", Uuid, nullable=False),
    PrimaryKeyConstraint("ticket_id", name="erased_tickets_pkey"),
)

# Which events were taken in; the consumer frame writes it.
consumed_events(metadata)
