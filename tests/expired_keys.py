"""Work for a sweeper: idempotency keys that have expired long ago, straight in the table."""

import psycopg

_CLAIMED = b"""
    INSERT INTO admin_service.idempotency_keys
    SELECT gen_random_uuid(), 'CreateTicket', %s, '', gen_random_uuid(), now() - make_interval(days => %s)
    FROM generate_series(1, %s)
"""


def put_keys(dsn: str, name: str, count: int, days_old: int = 100) -> None:
    """So many keys with the same text, each of a caller of its own."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(_CLAIMED, [name, days_old, count])


def keys_left(dsn: str, name: str) -> int:
    """How many of them are there."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        row = connection.execute(b"SELECT count(*) FROM admin_service.idempotency_keys WHERE key = %s", [name])
        ((count,),) = row.fetchall()
    return int(count)
