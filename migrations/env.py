"""Where Alembic enters: runs the revisions on the connection that `migrations.run` hands over. Knows no URL."""

from alembic import context

from db.tables import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    compare_type=True,
    compare_server_default=True,
    # Locks that a revision took are let go before the next wants others: old code goes on meanwhile.
    transaction_per_migration=True,
)
with context.begin_transaction():
    context.run_migrations()
