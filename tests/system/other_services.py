"""The Order and the User Service of the stage: made to misbehave, and well again as far as everybody knows."""

from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from server.clients.breaker import PAUSE
from tests.system.doors import Door, Grpc, Json
from tests.system.stage import Stage
from tests.system.vocabulary import as_agent, as_customer, eventually, new_id, open_ticket

# A breaker's pause, and the one between two rounds of the sweep that asks then.
RECOVERY_SECONDS = PAUSE + 10
CALLS = ("GetTicketOrder", "GetTicketRequester")


def behave(stage: Stage, **orders: Json) -> None:
    """Both do so from now on; well without orders."""
    stage.stack.order_service.give(**orders)
    stage.stack.user_service.give(**orders)


@contextmanager
def misbehaving(stage: Stage, **orders: Json) -> Iterator[None]:
    """Both do so meanwhile, and are found again afterwards."""
    try:
        behave(stage, **orders)
        yield
    finally:
        behave(stage)
        are_found(stage)


def are_found(stage: Stage) -> None:
    """Waits until every process that asks them is answered: by both the API's processes, by one of them the sweeper."""
    doors = [Grpc("a worker", target, stage.mint) for target in stage.stack.grpc_targets]
    try:
        eventually(lambda: all(map(is_answered, doors)) and not any(breakers_open(stage)), RECOVERY_SECONDS)
    finally:
        for door in doors:
            door.close()


def is_answered(worker: Door) -> bool:
    """Whether the worker is, for a new ticket; one that it is not answered for is left to the sweeper."""
    ticket, agent = open_ticket(worker, as_customer(), order_id=new_id()), as_agent()
    order, requester = (worker.call(call, agent, ticket_id=ticket["id"]).resource for call in CALLS)
    return (order["state"], requester["state"]) == ("current", "known")


def breakers_open(stage: Stage) -> Iterator[bool]:
    """Of each process that asks and each service, whether it is taken to be down."""
    for url in (*stage.stack.metrics_urls[: stage.stack.workers], stage.stack.metrics_url("sweeper")):
        text = httpx.get(url, trust_env=False).text
        yield from (f"nibble_{service}_service_breaker_open 1.0" in text for service in ("order", "user"))
