"""Who may call what of the Notification Service: everybody who has an inbox, which services have not."""

from server.domain.callers import STAFF, USERS, CallTable

MAY_CALL: CallTable = {
    f"NotificationService.{call}": USERS | STAFF
    for call in (
        "ListNotifications",
        "GetUnreadCount",
        "MarkNotificationsRead",
        "StreamNotifications",
        "GetNotificationPreferences",
        "UpdateNotificationPreferences",
    )
}
