"""The source of the signing keys is down, hangs or is broken: who was believed is believed, and nobody waits for it."""

import math
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from devstack.ports import LOOPBACK
from server import health
from tests.fault.api_process import ApiProcess
from tests.fault.identity_provider import IdentityProvider
from tests.system.doors import UNAVAILABLE, Answer
from tests.system.stage import Stage
from tests.system.vocabulary import eventually, new_id
from tests.unit.signing import key_set, signer, token

UNAUTHENTICATED = 16
OLD, NEW = signer("ES256", "old"), signer("EdDSA", "new")
COOL_DOWN = 10.0


@pytest.fixture(scope="module")
def provider() -> Iterator[IdentityProvider]:
    provider = IdentityProvider(key_set(OLD))
    yield provider
    provider.stop()


@pytest.fixture(scope="module")
def api(whole_stage: Stage, provider: IdentityProvider) -> Iterator[ApiProcess]:
    """A process that started while the provider was down."""
    api = ApiProcess(whole_stage, JWKS_FILE="", JWKS_URL=provider.url)
    yield api
    api.end()


def call(api: ApiProcess, bearer: str) -> Answer:
    return api.door.call_with("ListMyTickets", {"authorization": f"Bearer {bearer}"}, page_size=1)


def with_a_made_up_key(_number: int) -> str:
    return token(OLD, {"kid": new_id()})


# The tests follow one process through its life, in this order.


def test_without_keys_the_process_starts_and_says_that_it_can_not_tell_yet(api: ApiProcess) -> None:
    eventually(lambda: call(api, token(OLD)).reason == "DEPENDENCY_UNAVAILABLE", within=30)
    answer = call(api, token(OLD))
    assert (answer.code, answer.retry_delay) == (UNAVAILABLE, "1s")
    assert not health.is_serving(f"{LOOPBACK}:{api.port}")
    assert api.process.poll() is None


def test_it_serves_soon_after_the_provider_has_come_up(api: ApiProcess, provider: IdentityProvider) -> None:
    provider.start()
    eventually(lambda: health.is_serving(f"{LOOPBACK}:{api.port}"), within=15)
    assert call(api, token(OLD)).code == 0


def test_a_flood_of_made_up_keys_costs_the_source_one_look_per_cool_down(
    api: ApiProcess, provider: IdentityProvider
) -> None:
    before, began = provider.requests, time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda number: call(api, with_a_made_up_key(number)), range(300)))
    assert {(answer.code, answer.reason) for answer in answers} == {(UNAUTHENTICATED, "INVALID_TOKEN")}
    assert call(api, token(OLD)).code == 0
    looks_in_the_background = 1 + (time.monotonic() - began) / 15
    looks_for_the_flood = 1 + (time.monotonic() - began) / COOL_DOWN
    assert provider.requests - before <= math.ceil(looks_for_the_flood) + math.ceil(looks_in_the_background)


def test_while_the_source_hangs_good_tokens_are_served_and_a_new_key_works_when_it_answers(
    api: ApiProcess, provider: IdentityProvider
) -> None:
    provider.answering.clear()
    before = provider.requests
    with ThreadPoolExecutor(60) as pool:
        # The cool-down of the last look is over soon; from then on a call with a made-up key waits for the source.
        looking = pool.submit(eventually, lambda: bool(call(api, with_a_made_up_key(0))) and provider.requests > before)
        eventually(lambda: provider.requests > before, within=2 * COOL_DOWN)
        flood = [pool.submit(call, api, with_a_made_up_key(number)) for number in range(40)]
        assert call(api, token(OLD)).code == 0
        assert not provider.answering.is_set()
        provider.document = key_set(OLD, NEW)
        provider.answering.set()
        # Not at once: the flood holds every place of those who may wait for the look that is under way.
        eventually(lambda: call(api, token(NEW)).code == 0)
        assert {waiting.result().code for waiting in flood} == {UNAUTHENTICATED}
        looking.result()
    assert provider.requests == before + 1


def test_a_process_whose_source_hangs_from_the_start_is_not_ready_and_ends_when_asked(whole_stage: Stage) -> None:
    hanging = IdentityProvider(key_set(OLD))
    hanging.answering.clear()
    hanging.start()
    process = ApiProcess(whole_stage, JWKS_FILE="", JWKS_URL=hanging.url)
    try:
        eventually(lambda: call(process, token(OLD)).reason == "DEPENDENCY_UNAVAILABLE", within=30)
        eventually(lambda: hanging.requests > 0)
        assert not health.is_serving(f"{LOOPBACK}:{process.port}")
        process.process.terminate()
        # The source would hold up for ever whoever waits for it.
        assert process.process.wait(30) == 0
    finally:
        process.end()
        hanging.stop()
