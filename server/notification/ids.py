"""Version 7 ids made of a moment, so that a row's age is known by its id."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

from uuid_utils.compat import uuid7

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_RANDOM_BITS = 80


def id_at(moment: datetime) -> UUID:
    """A new id made of `moment`."""
    return uuid7(nanoseconds=_milliseconds(moment) * 1_000_000)


def least_id_at(moment: datetime) -> UUID:
    """Below every id that was made of `moment` or later, and above every one that was made a millisecond before."""
    return UUID(int=_milliseconds(moment) << _RANDOM_BITS)


def _milliseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(milliseconds=1)
