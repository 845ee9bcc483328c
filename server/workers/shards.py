"""How relays share the work: each shard of the tickets is one relay's at a time, by locks that end with its session."""

from collections.abc import Collection
from typing import Any

from psycopg import Connection

from server.db.schema import SHARDS

# The classes of two-part advisory locks: (SHARD_LOCKS, shard) is held by the shard's relay, (MEMBER_LOCKS, 0) is shared
# by all of them. The numbers are arbitrary but have to stay the same.
SHARD_LOCKS = 726_294_102
MEMBER_LOCKS = 726_294_103

_MEMBERS = f"""
    SELECT count(*) FROM pg_locks
    WHERE locktype = 'advisory' AND classid = {MEMBER_LOCKS} AND granted
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""  # noqa: S608


class Shards:
    """The shards that this session holds. Every method but `join` moves towards a fair share, none waits."""

    def __init__(self, connection: Connection[Any]) -> None:
        self._connection = connection
        self.held: set[int] = set()
        self.leaving: set[int] = set()
        """Held, but another's soon: nothing new is to be begun in them."""

    @property
    def own(self) -> set[int]:
        """Those to work on."""
        return self.held - self.leaving

    def join(self) -> None:
        """From now on the others count with this relay."""
        self._connection.execute(f"SELECT pg_advisory_lock_shared({MEMBER_LOCKS}, 0)")

    def balance(self, busy: Collection[int]) -> None:
        """Give up what is above the fair share, each shard when it is no longer `busy`, and take free ones below it."""
        share = fair_share(self._members())
        self._leave(len(self.held) - share, busy)
        for shard in self.leaving - set(busy):
            self._give_up(shard)
        self._take(share)

    def _members(self) -> int:
        row = self._connection.execute(_MEMBERS).fetchone()
        return int(row[0]) if row else 1

    def _leave(self, surplus: int, busy: Collection[int]) -> None:
        """Choose those that are left: such as are free to go, before others, and the same ones as before."""
        order = sorted(self.held, key=lambda shard: (shard not in self.leaving, shard in busy, shard))
        self.leaving = set(order[: max(0, surplus)])

    def _give_up(self, shard: int) -> None:
        self._connection.execute(f"SELECT pg_advisory_unlock({SHARD_LOCKS}, {shard})")
        self.held.discard(shard)
        self.leaving.discard(shard)

    def _take(self, share: int) -> None:
        for shard in range(SHARDS):
            if len(self.held) >= share:
                return
            if shard not in self.held and self._is_taken(shard):
                self.held.add(shard)

    def _is_taken(self, shard: int) -> bool:
        row = self._connection.execute(f"SELECT pg_try_advisory_lock({SHARD_LOCKS}, {shard})").fetchone()
        return bool(row and row[0])


def fair_share(relays: int) -> int:
    """How many shards each of so many relays may hold: with that many, no shard is left over."""
    return -(-SHARDS // max(1, relays))
