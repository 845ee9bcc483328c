"""When a service that fails is left alone, and when it is asked again."""

from server.clients.breaker import CircuitBreaker


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def opened(clock: Clock) -> CircuitBreaker:
    breaker = CircuitBreaker(clock, failures=3, pause=10)
    for _ in range(3):
        assert breaker.admits()
        breaker.failed()
    return breaker


def test_failures_in_a_row_open_it_and_a_success_between_them_does_not() -> None:
    breaker = CircuitBreaker(Clock(), failures=2)
    for _ in range(5):
        breaker.failed()
        breaker.succeeded()
    assert breaker.admits()
    for _ in range(2):
        breaker.failed()
    assert not breaker.admits()


def test_it_says_whether_it_is_open() -> None:
    assert opened(Clock()).is_open
    assert not CircuitBreaker(Clock()).is_open


def test_it_rests_while_nobody_may_call_and_no_longer() -> None:
    clock = Clock()
    breaker = opened(clock)
    rested = [breaker.rests]
    clock.now += 10
    rested.append(breaker.rests)
    assert breaker.admits()
    rested.append(breaker.rests)
    breaker.succeeded()
    rested.append(breaker.rests)
    assert rested == [True, False, True, False]


def test_after_the_pause_one_caller_tries_and_the_others_do_not() -> None:
    clock = Clock()
    breaker = opened(clock)
    clock.now += 9.9
    assert not breaker.admits()
    clock.now += 0.1
    assert [breaker.admits() for _ in range(3)] == [True, False, False]


def test_a_trial_that_fails_begins_a_new_pause() -> None:
    clock = Clock()
    breaker = opened(clock)
    clock.now += 10
    assert breaker.admits()
    clock.now += 2
    breaker.failed()
    clock.now += 9
    assert not breaker.admits()
    clock.now += 1
    assert breaker.admits()


def test_a_trial_that_succeeds_lets_everybody_in() -> None:
    clock = Clock()
    breaker = opened(clock)
    clock.now += 10
    assert breaker.admits()
    breaker.succeeded()
    assert not breaker.is_open
    assert all(breaker.admits() for _ in range(3))


def test_a_trial_that_never_ends_blocks_nobody_for_ever() -> None:
    clock = Clock()
    breaker = opened(clock)
    clock.now += 10
    assert breaker.admits()
    clock.now += 10
    assert breaker.admits()
