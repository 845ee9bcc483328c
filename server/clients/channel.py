"""Channels to other services: what all of them have in common."""

import grpc

ChannelOptions = list[tuple[str, int | str]]


def options(largest_answer: int) -> ChannelOptions:
    """Options for a channel whose answers have at most so many bytes; a larger one is RESOURCE_EXHAUSTED."""
    return [
        # A proxy from the environment has no business on the way to it.
        ("grpc.enable_http_proxy", 0),
        # Its usual patience would leave the service alone for two minutes after it has come back.
        ("grpc.max_reconnect_backoff_ms", 5_000),
        # A host that is gone without a word is given up after 5 seconds, not when TCP gives up, a quarter of an hour
        # later. No call lasts long enough for the ping itself, which servers may take for abuse.
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 5_000),
        ("grpc.max_receive_message_length", largest_answer),
    ]


def connect(target: str, largest_answer: int) -> grpc.aio.Channel:
    """A channel to the service at `target` (host:port); it connects when it is first used, and again by itself.

    To be made where the event loop runs that will use it.
    """
    return grpc.aio.insecure_channel(target, options(largest_answer))
