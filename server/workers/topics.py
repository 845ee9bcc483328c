"""The topics that the services share."""

TICKET_EVENTS = "support.ticket-events.v1"
DEAD_LETTERS = "support.ticket-events.v1.dlq"
"""What a consumer could not work with, as it came, with headers that say why."""
