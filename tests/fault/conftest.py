"""A stage for faults, put back in order after every one."""

from collections.abc import Iterator

import pytest

from devstack.stack import PARTS
from tests.fault.api_process import ApiProcess, serving
from tests.fault.load import takes_many_at_once
from tests.system.stage import Stage, pytest_runtest_makereport, stage_of
from tests.system.vocabulary import eventually

__all__ = ["pytest_runtest_makereport"]

# They would take the half of the machine for what no test here looks at: tens of thousands of events, told and mailed.
# Those whose faults they are have their own.
LISTENERS = {"notifier", "mail", "analyst", "analytics-api"}


@pytest.fixture(scope="session")
def whole_stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    """The real system, but for those who listen to its events."""
    with stage_of(request.session, [part for part in PARTS if part not in LISTENERS]) as stage:
        yield stage


@pytest.fixture
def stage(whole_stage: Stage) -> Iterator[Stage]:
    """The real system; what a test has killed and left dead is started again, and then at work again."""
    yield whole_stage
    stack = whole_stage.stack
    for part in (stack.part(name) for name in PARTS if stack.has(name)):
        if not part.program.one_shot and not part.is_alive():
            part.start()
    eventually(lambda: all(takes_many_at_once(door) for door in whole_stage.doors), 20)


@pytest.fixture
def api(stage: Stage) -> Iterator[ApiProcess]:
    """An API process of its own, serving."""
    with serving(stage) as started:
        yield started
