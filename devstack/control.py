"""How the stand-ins for what is not ours are told to misbehave: a file in RUN_DIR that they look at again and again.

A file, so that it also reaches one that is gone, and outlives one that is killed.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from devstack.identity import write_private

LOOK_SECONDS = 0.05
"""How often a stand-in looks whether it should listen."""

Orders = Mapping[str, Any]
"""What such a file holds; each stand-in says which names it knows."""


class Control:
    """The orders for one stand-in."""

    def __init__(self, run_dir: Path, name: str) -> None:
        self._file = run_dir / "control" / f"{name}.json"

    def give(self, **orders: Any) -> None:  # noqa: ANN401 - any JSON
        """Puts these orders in the place of all before them; without any the stand-in behaves well."""
        write_private(self._file, json.dumps(orders).encode())

    def orders(self) -> Orders:
        """The orders that hold now."""
        try:
            orders: Orders = json.loads(self._file.read_bytes())
        except FileNotFoundError:
            return {}
        return orders
