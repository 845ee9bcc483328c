"""What is sensitive in a text is masked before it is written; as it was it is kept for those who may reveal it."""

import asyncio
import json
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from server.detection import find
from server.domain import sensitive
from server.domain.tickets import Findings
from server.errors import Overloaded

# Longer ones are searched in a thread: made to be slow, 10,000 code points take 120 ms, and all other calls would wait.
LONGEST_INLINE = 2_000
# One, since it takes turns with the other calls: of two they would get a third of the time.
_thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="masking")
# What waits there must not fill the process, which has to have room for other calls.
MOST_WAITING = 50
_room = threading.BoundedSemaphore(MOST_WAITING)


class Masked(NamedTuple):
    """The texts of one row, by the names of their columns."""

    texts: Mapping[str, str]
    """As everybody reads them."""
    findings: Findings
    """What was masked in them, in their order."""
    originals: Mapping[str, str]
    """As they were written, where something was masked."""

    def after(self, findings: Findings) -> "Masked":
        """The same with what was found before in texts that stay."""
        return self._replace(findings=[*(findings or ()), *(self.findings or ())])

    def values(self) -> dict[str, object]:
        """The parameters of the statement that writes the row."""
        return {
            **self.texts,
            "findings": as_json(self.findings),
            "concealed_fields": list(self.originals),
            "concealed_texts": list(self.originals.values()),
        }


async def masked(texts: Mapping[str, str]) -> Masked:
    """The texts without what is sensitive in them, each as long as it was.

    Raises:
        Overloaded: too many long texts came at once.
    """
    if sum(map(len, texts.values())) <= LONGEST_INLINE:
        return _masked(texts)
    if not _room.acquire(blocking=False):
        raise Overloaded
    work = _thread.submit(_masked, texts)
    # Also where its caller has given up: what has begun goes on.
    work.add_done_callback(lambda _: _room.release())
    return await asyncio.wrap_future(work)


def _masked(texts: Mapping[str, str]) -> Masked:
    found = {field: find(text) for field, text in texts.items()}
    return Masked(
        {field: sensitive.mask(text, found[field]) for field, text in texts.items()},
        [{"field": field, **each._asdict()} for field, findings in found.items() for each in findings] or None,
        {field: text for field, text in texts.items() if found[field]},
    )


def as_json(findings: Findings) -> str | None:
    """The findings as their column takes them."""
    return json.dumps(findings) if findings else None
