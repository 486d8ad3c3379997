"""A job's deaths

Expands only: what the code before neither reads nor writes has a default, and it never writes a worker that is `out`.
`jobs.attempts` stays: the code before counts claims in it, and nothing reads it any more.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from migrations.locks import lock_all

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

STATES = "state IN ('starting', 'ready', 'draining', 'gone')"
STATES_AND_OUT = "state IN ('starting', 'ready', 'out', 'draining', 'gone')"


def upgrade() -> None:
    lock_all(op.get_bind())
    op.execute("SET LOCAL lock_timeout = '5s'")  # waiting for the lock would hold up everyone behind it
    op.add_column("jobs", sa.Column("deaths", postgresql.JSONB(), server_default=sa.text("'[]'"), nullable=False))
    op.add_column("jobs", sa.Column("suspect", sa.Boolean(), server_default=sa.text("false"), nullable=False))
    op.add_column("jobs", sa.Column("spec_version", sa.Integer(), server_default=sa.text("1"), nullable=False))
    op.add_column("leases", sa.Column("alone", sa.Boolean(), server_default=sa.text("false"), nullable=False))
    op.add_column("workers", sa.Column("reason", sa.String(), nullable=True))
    op.drop_constraint(op.f("ck_workers_state"), "workers", type_="check")
    op.create_check_constraint(op.f("ck_workers_state"), "workers", STATES_AND_OUT)


def downgrade() -> None:
    op.execute("UPDATE workers SET state = 'gone' WHERE state = 'out'")
    op.drop_constraint(op.f("ck_workers_state"), "workers", type_="check")
    op.create_check_constraint(op.f("ck_workers_state"), "workers", STATES)
    op.drop_column("workers", "reason")
    op.drop_column("leases", "alone")
    for column in ("spec_version", "suspect", "deaths"):
        op.drop_column("jobs", column)
