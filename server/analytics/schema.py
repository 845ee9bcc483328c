"""Where the Analytics Service keeps its tables."""

SCHEMA = "analytics_service"
