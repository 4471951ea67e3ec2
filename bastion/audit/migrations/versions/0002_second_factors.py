"""Second factors: the secrets, encrypted, and the codes that were used."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

TIME = sa.DateTime(timezone=True)
POSITION = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "enrolments",
        sa.Column("position", POSITION, sa.Identity(always=True), primary_key=True),
        sa.Column("user", sa.Text, nullable=False),
        sa.Column("secret", sa.LargeBinary),
        sa.Column("created_at", TIME, nullable=False),
    )
    op.create_index("enrolments_user", "enrolments", ["user", "position"])
    op.create_table(
        "used_codes",
        sa.Column("enrolment", POSITION, sa.ForeignKey("enrolments.position"), primary_key=True),
        sa.Column("step", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("used_at", TIME, nullable=False),
    )
