"""The support-ticket service: tickets and comments over gRPC on PostgreSQL, with events to Kafka."""
