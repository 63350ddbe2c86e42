"""What alembic loads to change the tables: it does so on the connection, and in the transaction, that it is given."""

from __future__ import annotations

from alembic import context

from backstay.catalog.models import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=True,  # SQLite changes few things of a table in place
    transactional_ddl=True,
)
context.run_migrations()
