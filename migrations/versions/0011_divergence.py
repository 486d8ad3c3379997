"""What a run did where it diverged

Expands only: what the constraint of 0001 lets be, its successor does.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from migrations.locks import lock_all

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

OLD, NEW = "succeeded_is_whole", "succeeded_is_whole_or_stopped"
WHOLE = "state <> 'succeeded' OR step = total_steps"


def upgrade() -> None:
    lock_all(op.get_bind())
    op.add_column("jobs", sa.Column("stopped", postgresql.JSONB(none_as_null=True), nullable=True))
    op.add_column("jobs", sa.Column("restarts", postgresql.JSONB(), server_default=sa.text("'[]'"), nullable=False))
    op.execute("GRANT UPDATE (stopped, restarts) ON jobs TO onward_worker")
    op.drop_constraint(op.f(f"ck_jobs_{OLD}"), "jobs", type_="check")
    op.create_check_constraint(op.f(f"ck_jobs_{NEW}"), "jobs", f"{WHOLE} OR stopped IS NOT NULL")
    op.create_check_constraint(
        op.f("ck_jobs_stopped_is_succeeded"), "jobs", "state IN ('succeeded') OR stopped IS NULL"
    )
    op.add_column("evaluations", sa.Column("noise", sa.Float(), nullable=True))
    op.add_column("evaluations", sa.Column("diverged", sa.Boolean(), server_default=sa.text("false"), nullable=False))
    op.add_column("evaluations", sa.Column("terms", postgresql.ARRAY(sa.Float(53)), nullable=True))


def downgrade() -> None:
    for column in ("terms", "diverged", "noise"):
        op.drop_column("evaluations", column)
    op.drop_constraint(op.f("ck_jobs_stopped_is_succeeded"), "jobs", type_="check")
    op.drop_constraint(op.f(f"ck_jobs_{NEW}"), "jobs", type_="check")
    jobs = sa.table("jobs", sa.column("step"), sa.column("total_steps"), sa.column("stopped"))
    op.execute(jobs.update().where(jobs.c.stopped.is_not(None)).values(total_steps=jobs.c.step))
    op.create_check_constraint(op.f(f"ck_jobs_{OLD}"), "jobs", WHOLE)
    for column in ("restarts", "stopped"):
        op.drop_column("jobs", column)
