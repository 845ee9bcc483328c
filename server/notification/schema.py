"""Where the Notification Service keeps its tables."""

SCHEMA = "notification_service"
