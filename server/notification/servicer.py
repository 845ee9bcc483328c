"""NotificationService: each method hands the fields to one act of the inbox and the result back."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from nibble.notification.v1 import notification_pb2
from nibble.notification.v1 import notification_service_pb2 as pb

from server.api.boundary import Call
from server.api.server import Methods
from server.notification import inbox
from server.notification.inbox import Collaborators, Update
from server.notification.translate import channel_words, notification_message, preferences_message, type_words


class NotificationServicer:
    """The six calls of `nibble.notification.v1.NotificationService`; the proto's comments say what each one does."""

    def __init__(self, on: Collaborators) -> None:
        self._on = on

    def methods(self) -> Methods:
        """The calls by their names in the proto."""
        return {
            "ListNotifications": self.list_notifications,
            "GetUnreadCount": self.get_unread_count,
            "MarkNotificationsRead": self.mark_notifications_read,
            "StreamNotifications": self.stream_notifications,
            "GetNotificationPreferences": self.get_notification_preferences,
            "UpdateNotificationPreferences": self.update_notification_preferences,
        }

    async def list_notifications(
        self, request: pb.ListNotificationsRequest, call: Call
    ) -> pb.ListNotificationsResponse:
        """`ListNotifications`."""
        page = await inbox.list_notifications(
            self._on,
            call.caller,
            unread_only=request.unread_only,
            page_size=request.page_size,
            page_token=request.page_token,
        )
        return pb.ListNotificationsResponse(
            notifications=[notification_message(it) for it in page.notifications],
            unread_count=page.unread_count,
            next_page_token=page.next_page_token,
        )

    async def get_unread_count(self, _request: pb.GetUnreadCountRequest, call: Call) -> pb.UnreadCount:
        """`GetUnreadCount`."""
        return pb.UnreadCount(unread_count=await inbox.count_unread(self._on, call.caller))

    async def mark_notifications_read(self, request: pb.MarkNotificationsReadRequest, call: Call) -> pb.UnreadCount:
        """`MarkNotificationsRead`."""
        up_to_id = request.up_to_id if request.HasField("up_to_id") else None
        return pb.UnreadCount(
            unread_count=await inbox.mark_read(self._on, call.caller, request.notification_ids, up_to_id)
        )

    async def stream_notifications(
        self, request: pb.StreamNotificationsRequest, call: Call
    ) -> AsyncGenerator[pb.NotificationUpdate, None]:
        """`StreamNotifications`."""
        after_id = request.after_id if request.HasField("after_id") else None
        async with aclosing(inbox.follow(self._on, call.caller, after_id)) as updates:
            async for update in updates:
                yield self._message(update)

    async def get_notification_preferences(
        self, _request: pb.GetNotificationPreferencesRequest, call: Call
    ) -> notification_pb2.NotificationPreferences:
        """`GetNotificationPreferences`."""
        return preferences_message(await inbox.get_preferences(self._on, call.caller))

    async def update_notification_preferences(
        self, request: pb.UpdateNotificationPreferencesRequest, call: Call
    ) -> notification_pb2.NotificationPreferences:
        """`UpdateNotificationPreferences`."""
        channels, types = channel_words(request.muted_channels), type_words(request.muted_types)
        return preferences_message(await inbox.set_preferences(self._on, call.caller, channels, types))

    def _message(self, update: Update) -> pb.NotificationUpdate:
        return pb.NotificationUpdate(
            notification=None if update.notification is None else notification_message(update.notification),
            unread_count=update.unread_count,
            sent_at=self._on.clock(),  # type: ignore[arg-type]
        )
