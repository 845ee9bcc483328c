"""Relays share the shards by PostgreSQL's locks: all of them are held, none twice, and none is given up amid work."""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import psycopg
import pytest

from server.db.schema import SHARDS
from server.workers.session import session
from server.workers.shards import Shards, fair_share

EVERY = set(range(SHARDS))


class Member(Shards):
    """A relay's shards, and the session that they hang on."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        super().__init__(connection)
        self.connection = connection


class Fleet:
    """Relays that come and go."""

    def __init__(self, dsn: str, sessions: ExitStack) -> None:
        self.dsn = dsn
        self._sessions = sessions

    def join(self) -> Member:
        """One more, which holds nothing yet."""
        member = Member(self._sessions.enter_context(session(self.dsn, "a relay of a test")))
        member.join()
        return member


@pytest.fixture
def fleet(own_dsn: str) -> Iterator[Fleet]:
    """Relays of a database of their own."""
    with ExitStack() as sessions:
        yield Fleet(own_dsn, sessions)


def settled(*members: Member) -> list[int]:
    """How many each holds after everyone has had two turns: one to give up, one to take."""
    for _ in range(2):
        for member in members:
            member.balance(busy=())
    held = [shard for member in members for shard in member.held]
    assert sorted(held) == sorted(EVERY)
    return [len(member.held) for member in members]


@pytest.mark.parametrize(("relays", "share"), [(1, 16), (2, 8), (3, 6), (5, 4), (16, 1), (40, 1)])
def test_fair_shares_leave_no_shard_over(relays: int, share: int) -> None:
    assert fair_share(relays) == share
    assert relays * share >= SHARDS


def test_whoever_comes_gets_a_share_and_whoever_goes_leaves_theirs_to_the_others(fleet: Fleet) -> None:
    first = fleet.join()
    assert settled(first) == [16]
    second = fleet.join()
    assert settled(first, second) == [8, 8]
    third = fleet.join()
    assert sorted(settled(first, second, third)) == [4, 6, 6]
    second.connection.close()
    # Its locks are gone when PostgreSQL has ended the session.
    while len(first.held) + len(third.held) < SHARDS:
        first.balance(busy=())
        third.balance(busy=())
    assert settled(first, third) == [8, 8]


def test_a_shard_with_events_on_their_way_is_given_up_only_when_they_have_arrived(fleet: Fleet) -> None:
    first, second = fleet.join(), fleet.join()
    first.balance(busy=EVERY)
    assert len(first.held) == 8
    second.connection.close()
    while len(first.held) < SHARDS:
        first.balance(busy=EVERY)
    third = fleet.join()
    first.balance(busy=EVERY)
    leaving = set(first.leaving)
    assert (len(first.held), len(leaving)) == (16, 8)
    assert first.own == EVERY - leaving
    third.balance(busy=())
    assert third.held == set()
    # As some of them become free others don't take their place.
    first.balance(busy=EVERY - {min(leaving)})
    assert first.leaving == leaving - {min(leaving)}
    third.balance(busy=())
    assert third.held == {min(leaving)}


def test_shards_that_are_free_to_go_are_left_first(fleet: Fleet) -> None:
    first = fleet.join()
    first.balance(busy=())
    fleet.join()
    first.balance(busy={0, 1, 2, 3})
    assert {0, 1, 2, 3} <= first.held
    assert (len(first.held), first.leaving) == (8, set())
