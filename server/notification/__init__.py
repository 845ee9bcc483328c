"""The Notification Service: who is told of a change, by inbox and by e-mail."""
