"""Where support keeps its tables, and what its workers know of them."""

SCHEMA = "admin_service"

# Tickets fall into this many shards, each of which one relay at a time sends. A power of two, as tables.SHARD has it;
# other than 16 needs another index.
SHARDS = 16
