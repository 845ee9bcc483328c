"""Rows to messages. The words are the same on both sides, so there is nothing to translate but types."""

from collections.abc import Collection

from nibble.notification.v1 import notification_pb2
from nibble.support.v1 import actor_pb2, ticket_pb2

from server.notification.notification import Notification, Preferences

TYPE = dict(notification_pb2.Notification.Type.items())
CHANNEL = dict(notification_pb2.Channel.items())
PRIORITY = dict(ticket_pb2.Ticket.Priority.items())
STATUS = dict(ticket_pb2.Ticket.Status.items())
ROLE = dict(actor_pb2.Actor.Role.items())

_TYPE_WORD: dict[int, str] = {number: word for word, number in TYPE.items() if number}
_CHANNEL_WORD: dict[int, str] = {number: word for word, number in CHANNEL.items() if number}


def type_words(numbers: Collection[int]) -> set[str | None]:
    """The types by their numbers, each once; None for unspecified and for a number that has no name."""
    return {_TYPE_WORD.get(number) for number in set(numbers)}


def channel_words(numbers: Collection[int]) -> set[str | None]:
    """The channels by their numbers, each once; None likewise."""
    return {_CHANNEL_WORD.get(number) for number in set(numbers)}


# protobuf takes a datetime for a Timestamp; the generated stubs don't know that yet, hence the ignores below.


def notification_message(notification: Notification) -> notification_pb2.Notification:
    """The notification as its recipient sees it; `read_at` is absent while it is unread."""
    return notification_pb2.Notification(
        id=str(notification.id),
        type=TYPE[notification.type],
        ticket_id=str(notification.ticket_id),
        subject=notification.subject,
        priority=PRIORITY[notification.priority],
        status=STATUS[notification.status],
        actor=actor_pb2.Actor(user_id=str(notification.actor_id), role=ROLE[notification.actor_role]),
        change_id=str(notification.change_id),
        occurred_at=notification.occurred_at,  # type: ignore[arg-type]
        created_at=notification.created_at,  # type: ignore[arg-type]
        read_at=notification.read_at,  # type: ignore[arg-type]
    )


def preferences_message(preferences: Preferences) -> notification_pb2.NotificationPreferences:
    """What is muted."""
    return notification_pb2.NotificationPreferences(
        muted_channels=[CHANNEL[word] for word in preferences.muted_channels],
        muted_types=[TYPE[word] for word in preferences.muted_types],
    )
