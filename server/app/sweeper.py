"""The sweeper: the process that does what is due because time has passed."""

import secrets
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

import structlog

from server.app import api_process
from server.app.collaborators import collaborators
from server.app.process import now, serve_metrics, silence_grpc, stop_loop_at_signals
from server.domain.tickets import Priority
from server.settings import Settings

if TYPE_CHECKING:
    from server.domain.attention import Patience
    from server.usecases.collaborators import Collaborators
    from server.workers.sweeper import Sweep

SWEEPER_GRACE_SECONDS = 5.0
# A sweep is at one statement at a time.
MOST_CONNECTIONS = 4

_log = structlog.stdlib.get_logger("nibble.app")


def run_sweeper(settings: Settings) -> int:
    """Sweep until SIGTERM or SIGINT; returns the exit code.

    Raises:
        StartError: the metrics port is taken.
    """
    import uvloop

    silence_grpc()
    serve_metrics(settings)
    uvloop.run(_run(settings))
    return 0


async def _run(settings: Settings) -> None:
    from server.db.statements import PROBE
    from server.workers.sweeper import Pace, Sweeper

    stop = stop_loop_at_signals(SWEEPER_GRACE_SECONDS)
    small = replace(settings, db_pool_size=min(settings.db_pool_size, MOST_CONNECTIONS))
    # The sweeper itself says once that the database is away, and once that it is back.
    database = api_process.database(small, PROBE, tells_of_trouble=False)
    pace = Pace(settings.sweep_interval_seconds, settings.sweep_round_seconds)
    # Nobody pages here, so any key will do.
    on = collaborators(settings, database, secrets.token_bytes(32))
    await database.open()
    try:
        await Sweeper(sweeps(on, settings), pace, now).run(stop)
    finally:
        await on.close()
        await database.close()
    _log.info("stopped")


def sweeps(on: "Collaborators", settings: Settings) -> "Sequence[Sweep]":
    """All that this sweeper is to do; README.md says what each is for."""
    from server.usecases import attention, closing, erasure, idempotency
    from server.workers.sweeper import Sweep

    patience = _patience(settings)
    return [
        Sweep(
            "expired_idempotency_keys",
            partial(idempotency.forget_expired_keys, on),
            partial(idempotency.oldest_expired_key, on),
        ),
        Sweep("auto_close", partial(closing.close_quiet_tickets, on), partial(closing.quiet_longest_due, on)),
        Sweep("erasures", partial(erasure.go_on_erasing, on), partial(erasure.oldest_erasure, on)),
        Sweep("told_erasures", partial(erasure.forget_erased_users, on), partial(erasure.oldest_told_erasure, on)),
        Sweep(
            "flag_unattended",
            partial(attention.flag_unattended, on, patience),
            partial(attention.oldest_unflagged, on, patience),
        ),
        *_asking_for_orders(on),
        *_reassigning(on, settings),
    ]


def _asking_for_orders(on: "Collaborators") -> "Sequence[Sweep]":
    """Off where there is no Order Service: what nobody can ever do is not due."""
    from server.usecases import order_context
    from server.workers.sweeper import Sweep

    if on.orders is None:
        return []
    fetch = partial(order_context.fetch_missing_orders, on)
    return [Sweep("missing_orders", fetch, partial(order_context.oldest_missing_order, on))]


def _reassigning(on: "Collaborators", settings: Settings) -> "Sequence[Sweep]":
    """Off unless it is asked for: whoever is away may want to come back to their tickets."""
    from server.usecases import reassignment
    from server.workers.sweeper import Sweep

    if settings.reassign_away_after_seconds is None:
        return []
    after = timedelta(seconds=settings.reassign_away_after_seconds)
    give_away = partial(reassignment.reassign_away, on, after)
    return [Sweep("reassign_away", give_away, partial(reassignment.oldest_kept_by_away, on, after))]


def _patience(settings: Settings) -> "Patience":
    return {priority: timedelta(seconds=getattr(settings, f"unattended_{priority}_seconds")) for priority in Priority}
