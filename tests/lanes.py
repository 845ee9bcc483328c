"""Which tests run beside which, where several processes share them (pytest-xdist)."""

from collections import Counter

from xdist.scheduler import LoadFileScheduling
from xdist.workermanage import WorkerController

SECONDS_A_FILE = {"fault": 15.0, "system": 9.0, "integration": 3.0, "unit": 1.0}
"""By folder, about how long a file takes. Most of it is waiting in the first, and computing in the last."""

FIRST = (
    # Before the others have told tens of thousands of events: it reads all that there are, three times.
    "tests/fault/test_analyst_killed.py",
    "tests/fault/test_kafka_down.py",
    "tests/fault/test_services_down.py",
    "tests/fault/test_reassignment_race.py",
    "tests/system/test_rest_keeps_its_document.py",
    "tests/system/test_devstack.py",
)
"""These come first in their folders. All but the one that says why are long: nobody waits for them at the end."""


class Lanes(LoadFileScheduling):  # type: ignore[misc]
    """Hands out whole files, and keeps each process in its folder as long as there are files.

    Where it begins another it has to start what the tests there stand on: a system, a PostgreSQL, a Kafka.
    """

    def _assign_work_unit(self, node: WorkerController) -> None:
        self.workqueue.move_to_end(self._next_file(node), last=False)
        super()._assign_work_unit(node)

    def _next_file(self, node: WorkerController) -> str:
        folder = self._folder_of(node)
        left = Counter(map(folder_of, self.workqueue))
        if folder not in left:
            busy = Counter(self._folder_of(other) for other in self.nodes if other is not node)
            folder = max(left, key=lambda it: left[it] * SECONDS_A_FILE[it] / (1 + busy[it]))
        files = [file for file in self.workqueue if folder_of(file) == folder]
        return next((file for file in FIRST if file in files), files[0])

    def _folder_of(self, node: WorkerController) -> str:
        """Where the process is at work; the empty string before it is."""
        files = list(self.assigned_work.get(node, ()))
        return folder_of(files[-1]) if files else ""


def folder_of(file: str) -> str:
    """`unit` of `tests/unit/test_roster_rules.py`."""
    return file.split("/")[1]
