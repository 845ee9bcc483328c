"""Creates tickets as fast as the API takes them: `python -m bench.creates TARGET TOKEN SECONDS CALLERS`.

Its own process, so that it takes no time from what is measured but the machine's. Prints how long the calls took, in
seconds, one a line.
"""

import asyncio
import sys
import time

import grpc
from nibble.support.v1 import ticket_service_pb2, ticket_service_pb2_grpc

REQUEST = ticket_service_pb2.CreateTicketRequest(subject="Cold soup", description="The soup came cold. " * 20)


async def _create(stub: "ticket_service_pb2_grpc.TicketServiceAsyncStub", token: str, until: float) -> list[float]:
    """One caller, who asks again as soon as there is an answer."""
    metadata, seconds = (("authorization", f"Bearer {token}"),), []
    while (began := time.monotonic()) < until:
        await stub.CreateTicket(REQUEST, metadata=metadata)
        seconds.append(time.monotonic() - began)
    return seconds


async def _load(target: str, token: str, seconds: float, callers: int) -> list[float]:
    async with grpc.aio.insecure_channel(target) as channel:
        stub = ticket_service_pb2_grpc.TicketServiceStub(channel)
        until = time.monotonic() + seconds
        of_each = await asyncio.gather(*(_create(stub, token, until) for _ in range(callers)))
    return [taken for calls in of_each for taken in calls]


if __name__ == "__main__":
    to, bearer, length, together = sys.argv[1:]
    for each in asyncio.run(_load(to, bearer, float(length), int(together))):
        sys.stdout.write(f"{each}\n")
