"""How the service connects to PostgreSQL: so that it notices a server that is gone without a word."""

import pytest
from psycopg.conninfo import conninfo_to_dict

from server.db.database import LIVELINESS, with_liveliness


@pytest.mark.parametrize("dsn", ["postgresql://me:p%40ss@db:5433/nibble?host=/tmp/x%20y", "host=db dbname=nibble"])
def test_a_connection_notices_a_server_that_is_gone_without_a_word(dsn: str) -> None:
    said = conninfo_to_dict(dsn)
    added = {name: str(value) for name, value in LIVELINESS.items()}
    assert conninfo_to_dict(with_liveliness(dsn)) == {**said, **added}


def test_what_the_url_says_itself_is_kept() -> None:
    dsn = "postgresql://db/nibble?connect_timeout=9&keepalives_idle=99"
    found = conninfo_to_dict(with_liveliness(dsn))
    assert (found["connect_timeout"], found["keepalives_idle"]) == ("9", "99")
