"""Alembic's migrations; bastion.audit.database.upgrade runs them."""
