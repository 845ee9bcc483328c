"""An API worker that no longer runs but whose connections still stand: readers are served by the other one."""

from concurrent.futures import ThreadPoolExecutor

from devstack.service import is_serving
from tests.fault.test_api_worker_killed import worker
from tests.system.doors import OK
from tests.system.stage import Stage
from tests.system.vocabulary import as_customer, eventually

READERS = 8


def test_no_reader_waits_in_vain_for_a_frozen_worker(stage: Stage) -> None:
    frozen = worker(stage, 0)
    assert frozen is not None
    frozen.suspend()
    try:
        with ThreadPoolExecutor(READERS) as pool:
            doors = [stage.rest, stage.grpc] * (READERS // 2)
            answers = list(pool.map(lambda door: door.call("ListMyTickets", as_customer()), doors))
    finally:
        frozen.resume()

    assert [answer.code for answer in answers] == [OK] * READERS
    eventually(lambda: is_serving(stage.stack.ports.grpc))
