"""Points of runs whose journal is not enough, and which worker takes which job

A job whose method needs derivatives says so in a column, for a scheduler reads no spec; a worker says what it takes. The
columns' defaults are what the release before writes and can do. Expands only.
"""

import sqlalchemy as sa
from alembic import op

from migrations.locks import lock_all

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

TENANT = "(SELECT NULLIF(current_setting('onward.tenant', true), ''))"
OVER = "EXISTS (SELECT FROM jobs WHERE jobs.id = points.job_id AND jobs.finished_at IS NOT NULL)"
GRANTS = """
    GRANT SELECT (job_id, step, number, tenant_id), DELETE ON points TO onward_api;
    GRANT SELECT, INSERT, DELETE ON points TO onward_worker;
    GRANT SELECT (job_id, step, number), DELETE ON points TO onward_retention;
    GRANT UPDATE (autograd) ON jobs TO onward_api;
    GRANT SELECT (autograd) ON jobs TO onward_scheduler
"""
# As in 0009: what was accepted is rewritten by no process.
ACCEPTED = """
DROP TRIGGER accepted ON jobs;
CREATE TRIGGER accepted BEFORE UPDATE OF spec, request, total_steps, price_tokens, decided_at{} ON jobs FOR EACH ROW
    WHEN (OLD.decided_at IS NOT NULL AND current_user = 'onward_api') EXECUTE FUNCTION onward_accepted();
"""


def upgrade() -> None:
    lock_all(op.get_bind())
    op.create_table(
        "points",
        sa.Column("job_id", sa.String(), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("tenant_id", sa.String(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id", "job_id"], ["jobs.tenant_id", "jobs.id"], name="fk_points_job"),
        sa.PrimaryKeyConstraint("job_id", "step", "number", name=op.f("pk_points")),
        sa.CheckConstraint("step > 0 AND number >= 0", name=op.f("ck_points_whole")),
    )
    op.execute("ALTER TABLE points ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY")
    op.execute("CREATE POLICY owner ON points TO CURRENT_USER USING (true) WITH CHECK (true)")
    op.execute(f"CREATE POLICY tenant ON points TO onward_api, onward_worker USING (tenant_id = {TENANT})")
    op.execute(f"CREATE POLICY retention ON points TO onward_retention USING ({OVER})")
    op.add_column("jobs", sa.Column("autograd", sa.Boolean(), server_default=sa.text("false"), nullable=False))
    op.add_column("workers", sa.Column("takes", sa.String(), server_default="forward", nullable=False))
    op.create_check_constraint(op.f("ck_workers_takes"), "workers", "takes IN ('forward', 'autograd', 'all')")
    _turn(["price_tokens", "autograd"])
    op.execute(GRANTS)
    op.execute(ACCEPTED.format(", autograd"))


def _turn(include: list[str]) -> None:
    """What goes before a job is read off its index alone."""
    op.drop_index("ix_jobs_turn", "jobs")
    turn = ["model", "tenant_id", sa.text("priority DESC"), "created_at", "id"]
    waiting = sa.text("state IN ('queued', 'running')")
    op.create_index("ix_jobs_turn", "jobs", turn, postgresql_include=include, postgresql_where=waiting)


def downgrade() -> None:
    op.execute(ACCEPTED.format(""))
    _turn(["price_tokens"])
    op.drop_constraint(op.f("ck_workers_takes"), "workers")
    op.drop_column("workers", "takes")
    op.drop_column("jobs", "autograd")
    op.drop_table("points")
