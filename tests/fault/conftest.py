"""The stage of the system tests, put back in order after every fault."""

from collections.abc import Iterator

import pytest

from devstack.stack import PARTS
from tests.fault.api_process import ApiProcess, serving
from tests.fault.load import takes_many_at_once
from tests.system.stage import Stage, stage_of
from tests.system.vocabulary import eventually


@pytest.fixture(scope="session")
def whole_stage(request: pytest.FixtureRequest) -> Stage:
    """The real system, shared with the system tests."""
    return stage_of(request.session)


@pytest.fixture
def stage(whole_stage: Stage) -> Iterator[Stage]:
    """The real system; what a test has killed and left dead is started again, and then at work again."""
    yield whole_stage
    for part in (whole_stage.stack.part(name) for name in PARTS):
        if not part.program.one_shot and not part.is_alive():
            part.start()
    eventually(lambda: all(takes_many_at_once(door) for door in whole_stage.doors), 20)


@pytest.fixture
def api(stage: Stage) -> Iterator[ApiProcess]:
    """An API process of its own, serving."""
    with serving(stage) as started:
        yield started
