"""The statements of compositions.py as texts, which `make generate` wrote: running them needs no SQLAlchemy."""

from nibble_sql.notification import *  # noqa: F403
