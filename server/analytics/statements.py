"""The statements of compositions.py as texts, which `make generate` wrote: running them needs no SQLAlchemy."""

from nibble_sql.analytics import *  # noqa: F403
