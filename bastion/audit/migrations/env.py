"""Alembic runs this to upgrade: on the connection, and within the transaction, that upgrade() opened."""

from alembic import context

from bastion.audit.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
