"""Clients of the services that this one calls."""
