"""Alembic's entry: runs the migrations on the connection that `migrate` hands over, inside its transaction."""

from alembic import context

migrations = context.config.attributes["migrations"]
context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=migrations.metadata,
    version_table_schema=migrations.schema,
    include_schemas=True,
)
with context.begin_transaction():
    context.run_migrations()
