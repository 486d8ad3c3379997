"""Results of a job, steps restored by number, and jobs that go on from another's adapter

Expands only. What `parent_id` says is read from the spec by a trigger, so that whoever writes a spec writes it too.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from migrations.locks import lock_all

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

TENANT = "(SELECT NULLIF(current_setting('onward.tenant', true), ''))"
GRANTS = """
    GRANT SELECT ON results TO onward_api;
    GRANT SELECT, INSERT ON results TO onward_worker;
    GRANT SELECT, INSERT (tenant_id, job_id, step), DELETE ON restorations TO onward_api;
    GRANT SELECT, UPDATE (state, held_by, error, sha256, bytes, expires_at) ON restorations TO onward_worker;
    GRANT SELECT (tenant_id, job_id, step, state, held_by, asked_at) ON restorations TO onward_scheduler;
    GRANT SELECT (job_id, step, expires_at), DELETE ON restorations TO onward_retention;
    GRANT SELECT ON restored_chunks TO onward_api;
    GRANT INSERT ON restored_chunks TO onward_worker;
    GRANT SELECT (parent_id) ON jobs TO onward_retention
"""
PARENT = """
CREATE FUNCTION onward_parent() RETURNS trigger LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    NEW.parent_id := NEW.spec -> 'parent' ->> 'job';
    RETURN NEW;
END $$;
CREATE TRIGGER parent_of BEFORE INSERT OR UPDATE OF spec ON jobs FOR EACH ROW EXECUTE FUNCTION onward_parent();
"""
# As in 0007, and now not the journal of a job that another goes on from either: it is part of that one's receipt.
OVER = "EXISTS (SELECT FROM jobs WHERE jobs.id = {0}.job_id AND jobs.finished_at IS NOT NULL)"
NO_RECEIPT = f"{OVER} AND NOT EXISTS (SELECT FROM adapters WHERE adapters.job_id = {{0}}.job_id)"
CHILDLESS = f"{NO_RECEIPT} AND NOT EXISTS (SELECT FROM jobs child WHERE child.parent_id = {{0}}.job_id)"


def upgrade() -> None:
    lock_all(op.get_bind())
    _results()
    _restorations()
    op.add_column("jobs", sa.Column("parent_id", sa.String(), nullable=True))
    op.create_foreign_key("fk_jobs_parent", "jobs", "jobs", ["tenant_id", "parent_id"], ["tenant_id", "id"])
    op.create_index(op.f("ix_jobs_parent_id"), "jobs", ["parent_id"], postgresql_where=sa.text("parent_id IS NOT NULL"))
    op.execute(PARENT)
    for table in ("results", "restorations", "restored_chunks"):
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY")
        op.execute(f"CREATE POLICY owner ON {table} TO CURRENT_USER USING (true) WITH CHECK (true)")
        op.execute(f"CREATE POLICY tenant ON {table} TO onward_api, onward_worker USING (tenant_id = {TENANT})")
    op.execute("CREATE POLICY scheduler ON restorations TO onward_scheduler USING (true)")
    op.execute("CREATE POLICY retention ON restorations TO onward_retention USING (expires_at < now())")
    op.execute(GRANTS)
    _keep(CHILDLESS)


def downgrade() -> None:
    _keep(NO_RECEIPT)
    op.execute("DROP TRIGGER parent_of ON jobs")
    op.execute("DROP FUNCTION onward_parent()")
    op.drop_index(op.f("ix_jobs_parent_id"), table_name="jobs")
    op.drop_constraint("fk_jobs_parent", "jobs")
    op.drop_column("jobs", "parent_id")
    for table in ("restored_chunks", "restorations", "results"):
        op.drop_table(table)


def _keep(which: str) -> None:
    """What retention may delete of a job's measures."""
    for table in ("journal", "evaluations"):
        op.execute(f"ALTER POLICY retention ON {table} USING ({which.format(table)})")


def _results() -> None:
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


def _restorations() -> None:
    op.create_table(
        "restorations",
        sa.Column("job_id", sa.String(), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("tenant_id", sa.String(), nullable=False),
        sa.Column("state", sa.String(), server_default="asked", nullable=False),
        sa.Column("held_by", sa.String(), nullable=True),
        sa.Column("error", postgresql.JSONB(none_as_null=True), nullable=True),
        sa.Column("sha256", sa.String(), nullable=True),
        sa.Column("bytes", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("asked_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["tenant_id", "job_id"], ["jobs.tenant_id", "jobs.id"], name="fk_restorations_job"),
        sa.PrimaryKeyConstraint("job_id", "step", name=op.f("pk_restorations")),
        sa.UniqueConstraint("tenant_id", "job_id", "step", name=op.f("uq_restorations_tenant_id_job_id_step")),
        sa.CheckConstraint("state IN ('asked', 'ready', 'failed')", name=op.f("ck_restorations_state")),
        sa.CheckConstraint("(state = 'asked') = (expires_at IS NULL)", name=op.f("ck_restorations_over_has_an_end")),
        sa.CheckConstraint("(state = 'ready') = (sha256 IS NOT NULL)", name=op.f("ck_restorations_ready_has_a_hash")),
        sa.CheckConstraint(
            "(state = 'failed') = (error IS NOT NULL)", name=op.f("ck_restorations_failed_has_a_reason")
        ),
        sa.CheckConstraint("step >= 0 AND bytes >= 0", name=op.f("ck_restorations_whole")),
    )
    asked, over = sa.text("state = 'asked'"), sa.text("expires_at IS NOT NULL")
    op.create_index(op.f("ix_restorations_asked"), "restorations", ["asked_at"], postgresql_where=asked)
    op.create_index(op.f("ix_restorations_expires_at"), "restorations", ["expires_at"], postgresql_where=over)
    op.create_table(
        "restored_chunks",
        sa.Column("job_id", sa.String(), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("tenant_id", sa.String(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id", "job_id", "step"],
            ["restorations.tenant_id", "restorations.job_id", "restorations.step"],
            name="fk_restored_chunks_owner",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("job_id", "step", "number", name=op.f("pk_restored_chunks")),
    )
