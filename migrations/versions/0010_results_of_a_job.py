"""Results of a job

Expands only.
"""

import sqlalchemy as sa
from alembic import op

from migrations.locks import lock_all

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

TENANT = "(SELECT NULLIF(current_setting('onward.tenant', true), ''))"


def upgrade() -> None:
    lock_all(op.get_bind())
    op.create_table(
        "results",
        sa.Column("job_id", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("tenant_id", sa.String(), nullable=False),
        sa.Column("file_id", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id", "job_id"], ["jobs.tenant_id", "jobs.id"], name="fk_results_job"),
        sa.ForeignKeyConstraint(["tenant_id", "file_id"], ["files.tenant_id", "files.id"], name="fk_results_file"),
        sa.PrimaryKeyConstraint("job_id", "kind", name=op.f("pk_results")),
        sa.CheckConstraint("kind IN ('metrics', 'adapter', 'receipt')", name=op.f("ck_results_kind")),
    )
    op.execute("ALTER TABLE results ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY")
    op.execute("CREATE POLICY owner ON results TO CURRENT_USER USING (true) WITH CHECK (true)")
    op.execute(f"CREATE POLICY tenant ON results TO onward_api, onward_worker USING (tenant_id = {TENANT})")
    op.execute("GRANT SELECT ON results TO onward_api")
    op.execute("GRANT SELECT, INSERT ON results TO onward_worker")


def downgrade() -> None:
    op.drop_table("results")
