"""Commands that are searched; events whose positions become visible in their order, and wake who follows them."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

POSITION = sa.BigInteger().with_variant(sa.Integer, "sqlite")
# A position is given before its row is visible, and without this lock a smaller one could appear after a greater one,
# behind the back of who has read that far. The lock ends with the transaction; who holds it and vanishes is cut off.
IN_ORDER = """
CREATE FUNCTION bastion_events_in_order() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('idle_in_transaction_session_timeout', '5s', true);
    PERFORM pg_advisory_xact_lock(7089074232280182373);
    RETURN NULL;
END $$;
CREATE TRIGGER bastion_events_in_order BEFORE INSERT ON events
    FOR EACH STATEMENT EXECUTE FUNCTION bastion_events_in_order();
CREATE FUNCTION bastion_events_told() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('bastion_events', '');
    RETURN NULL;
END $$;
CREATE TRIGGER bastion_events_told AFTER INSERT ON events
    FOR EACH STATEMENT EXECUTE FUNCTION bastion_events_told();
"""
# where the extension may not be made, a search reads all rows
TRIGRAMS = """
DO $$ BEGIN
    CREATE EXTENSION IF NOT EXISTS pg_trgm;
    CREATE INDEX commands_content_trigrams ON commands USING gin (content gin_trgm_ops);
EXCEPTION WHEN insufficient_privilege OR undefined_file OR feature_not_supported OR undefined_object THEN
    RAISE NOTICE 'pg_trgm is not there: searches will read all commands';
END $$;
"""
FTS = (
    "CREATE VIRTUAL TABLE commands_text"
    " USING fts5(content, content='commands', content_rowid='position', tokenize='trigram')",
    "CREATE TRIGGER commands_text_insert AFTER INSERT ON commands BEGIN"
    " INSERT INTO commands_text (rowid, content) VALUES (new.position, new.content); END",
    "CREATE TRIGGER commands_text_delete AFTER DELETE ON commands BEGIN"
    " INSERT INTO commands_text (commands_text, rowid, content) VALUES ('delete', old.position, old.content); END",
)


def upgrade() -> None:
    op.drop_table("commands")  # nothing was written into it until now
    op.create_table(
        "commands",
        sa.Column("position", POSITION, sa.Identity(always=True), primary_key=True),
        sa.Column("command_id", sa.Text, nullable=False, unique=True),
        sa.Column("session_id", sa.Text, sa.ForeignKey("sessions.session_id"), nullable=False),
        sa.Column("user", sa.Text, nullable=False),
        sa.Column("app_name", sa.Text, nullable=False),
        sa.Column("address", sa.Text, nullable=False),
        sa.Column("content", sa.Text, nullable=False),
        sa.Column("confidence", sa.Text, nullable=False),
        sa.Column("prompt", sa.Text, nullable=False),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("degraded", sa.Boolean, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_index("commands_session_id", "commands", ["session_id"])
    op.create_index("commands_created_at", "commands", ["created_at"])
    op.create_index("commands_user_position", "commands", ["user", "position"])
    op.create_index("commands_app_name_position", "commands", ["app_name", "position"])
    if op.get_bind().dialect.name == "postgresql":
        op.execute(IN_ORDER)
        op.execute(TRIGRAMS)
    else:
        for statement in FTS:
            op.execute(statement)
