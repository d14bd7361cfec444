"""Alembic's entry point: runs on the connection that `db.migrate` hands over, or writes the statements."""

from alembic import context

from db.models import Base

connection = context.config.attributes["connection"]
if connection is None:
    context.configure(dialect_name="postgresql", output_buffer=context.config.output_buffer)
else:
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        compare_type=True,
        transaction_per_migration=True,
    )
with context.begin_transaction():
    context.run_migrations()
