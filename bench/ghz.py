"""ghz as the callers, where it is installed: it takes less of the processors than a client in Python.

It sends one token with all its calls, an agent's, and looks at nothing of an answer but its status. What needs a token
for each call, or an order among calls, is left to the callers of our own.
"""

import json
import random
import shutil
import subprocess
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from google.protobuf.json_format import MessageToDict

from bench.callers import CONNECTIONS, SEED, Order
from bench.company import Callers, CallersFailed, Calls
from bench.data_set import data_set
from bench.kinds import KINDS, Share, requests
from devstack.part import CHECKOUT
from devstack.stack import Stack

DOES = ("create", "get", "list", "list-filtered", "list-comments")
VARIETY = 512
DESCRIPTORS = CHECKOUT / "generated" / "nibble.binpb"
TIMEOUT_SECONDS = 60.0


def installed() -> str | None:
    """Where ghz is; None where it is not on the PATH."""
    return shutil.which("ghz")


class Ghz:
    """Makes the calls that ghz can make, and has the others made."""

    def __init__(self, program: str, stack: Stack, count: int, others: Callers) -> None:
        """Args: program: ghz; count: how many call at once; others: who makes the rest."""
        self._program = program
        self._count = count
        self._others = others
        self._folder = stack.run_dir
        self._token = stack.mint_token("support_agent", str(data_set().agents[0]))

    def make_calls(self, order: Order) -> Calls:
        """Have the calls made.

        Raises:
            CallersFailed: one of them failed.
        """
        if order.door != "grpc" or order.kind not in DOES:
            return self._others.make_calls(order)
        done = subprocess.run(
            self._command(order), capture_output=True, text=True, check=False, timeout=TIMEOUT_SECONDS
        )
        if done.returncode:
            raise CallersFailed(f"ghz: {done.stderr or done.stdout}")
        return calls_in(json.loads(done.stdout))

    def _command(self, order: Order) -> Sequence[str]:
        method = KINDS[order.kind].method
        return [
            self._program,
            "--insecure",
            f"--protoset={DESCRIPTORS}",
            f"--call={method.containing_service.full_name}/{method.name}",
            f"--data-file={self._data(order.kind)}",
            f"--metadata={json.dumps({'authorization': f'Bearer {self._token}'})}",
            f"--concurrency={self._count}",
            f"--connections={CONNECTIONS}",
            f"--duration={order.seconds}s",
            "--duration-stop=wait",
            *("--disable-template-data", "--disable-template-functions"),
            "--format=json",
            order.targets[0],
        ]

    def _data(self, kind: str) -> Path:
        file = self._folder / f"ghz-{kind}.json"
        if not file.exists():
            asks = requests(kind, Share(data_set(), random.Random(SEED), 0, 1))  # noqa: S311 - nothing secret
            found = [MessageToDict(ask.request, preserving_proto_field_name=True) for _, ask in islice(asks, VARIETY)]
            file.write_text(json.dumps(found))
        return file


def calls_in(report: dict[str, Any]) -> Calls:
    """The calls of a report of ghz.

    Raises:
        CallersFailed: not all of them were answered with OK, or not all are there.
    """
    codes = report["statusCodeDistribution"]
    if set(codes) != {"OK"}:
        raise CallersFailed(f"ghz: {codes}, {report['errorDistribution']}")
    nanoseconds = sorted(call["latency"] for call in report["details"])
    if len(nanoseconds) != report["count"]:
        raise CallersFailed(f"ghz: it tells of {len(nanoseconds)} of {report['count']} calls")
    return Calls([each / 1e6 for each in nanoseconds], report["total"] / 1e9)
