"""The first tables."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "sessions",
        sa.Column("session_id", sa.Text, primary_key=True),
        sa.Column("connection_id", sa.Text, nullable=False),
        sa.Column("bastion_id", sa.Text, nullable=False),
        sa.Column("user", sa.Text, nullable=False),
        sa.Column("source_ip", sa.Text, nullable=False),
        sa.Column("app_name", sa.Text, nullable=False),
        sa.Column("proc_name", sa.Text),
        sa.Column("instance_no", sa.BigInteger),
        sa.Column("engine", sa.Text, nullable=False),
        sa.Column("container_id", sa.Text, nullable=False),
        sa.Column("node_ip", sa.Text),
        sa.Column("terminal", sa.Boolean, nullable=False),
        sa.Column("command", sa.Text),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("ended_at", TIME),
        sa.Column("updated_at", TIME, nullable=False),
    )
    op.create_index("sessions_created_at", "sessions", ["created_at"])
    op.create_index("sessions_user_created_at", "sessions", ["user", "created_at"])
    op.create_index("sessions_status", "sessions", ["status", "bastion_id"])
    op.create_table(
        "commands",
        sa.Column("command_id", sa.Text, primary_key=True),
        sa.Column("session_id", sa.Text, sa.ForeignKey("sessions.session_id"), nullable=False),
        sa.Column("user", sa.Text, nullable=False),
        sa.Column("content", sa.Text, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
    )
    op.create_index("commands_session_id", "commands", ["session_id"])
    op.create_index("commands_created_at", "commands", ["created_at"])
    op.create_table(
        "events",
        sa.Column(
            "position", sa.BigInteger().with_variant(sa.Integer, "sqlite"), sa.Identity(always=True), primary_key=True
        ),
        sa.Column("id", sa.Text, nullable=False, unique=True),
        sa.Column("time", TIME, nullable=False),
        sa.Column("event", sa.Text, nullable=False),
        sa.Column("bastion_id", sa.Text, nullable=False),
        sa.Column("connection_id", sa.Text),
        sa.Column("session_id", sa.Text),
        sa.Column("user", sa.Text),
        sa.Column("source_ip", sa.Text),
        sa.Column("address", sa.Text),
        sa.Column("container_id", sa.Text),
        sa.Column("engine", sa.Text),
        sa.Column("reason", sa.Text),
        sa.Column("entry", sa.Text, nullable=False),
    )
    op.create_index("events_time", "events", ["time"])
    op.create_index("events_session_id", "events", ["session_id"])
    op.create_index("events_user_time", "events", ["user", "time"])
