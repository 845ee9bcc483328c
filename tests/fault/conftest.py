"""The stage of the system tests, put back in order after every fault."""

from collections.abc import Iterator

import pytest

from devstack.stack import PARTS
from tests.system.stage import Stage, stage_of


@pytest.fixture(scope="session")
def whole_stage(request: pytest.FixtureRequest) -> Stage:
    """The real system, shared with the system tests."""
    return stage_of(request.config)


@pytest.fixture
def stage(whole_stage: Stage) -> Iterator[Stage]:
    """The real system; what a test has killed and left dead is started again."""
    yield whole_stage
    for name in PARTS:
        part = whole_stage.stack.part(name)
        if not part.program.one_shot and not part.is_alive():
            part.start()
