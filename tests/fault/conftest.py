"""The stage of the system tests, put back in order after every fault."""

from collections.abc import Iterator

import pytest

from devstack.stack import PARTS
from tests.system.doors import OK, Door
from tests.system.stage import Stage, stage_of
from tests.system.vocabulary import as_customer, eventually


@pytest.fixture(scope="session")
def whole_stage(request: pytest.FixtureRequest) -> Stage:
    """The real system, shared with the system tests."""
    return stage_of(request.session)


@pytest.fixture
def stage(whole_stage: Stage) -> Iterator[Stage]:
    """The real system; what a test has killed and left dead is started again."""
    yield whole_stage
    parts = [whole_stage.stack.part(name) for name in PARTS]
    dead = [part for part in parts if not part.program.one_shot and not part.is_alive()]
    for part in dead:
        part.start()
    if dead:
        eventually(lambda: all(is_at_ease(door) for door in whole_stage.doors), 20)


def is_at_ease(door: Door) -> bool:
    """Whether many calls go well: a worker has several connections to PostgreSQL, each of which may be a dead one."""
    return all(door.call("ListMyTickets", as_customer()).code == OK for _ in range(20))
