"""The Notification Service: tells people what happened to their tickets, in an inbox and by e-mail."""
