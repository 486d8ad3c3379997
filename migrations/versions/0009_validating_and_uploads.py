"""Jobs that are being validated, counts that are kept, files that expire, and uploads in parts

Expands only: whatever the release before writes is decided when it is made, and no worker of it claims what is not queued.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from migrations.locks import lock_all

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

TENANT = "(SELECT NULLIF(current_setting('onward.tenant', true), ''))"
STATES = "'queued', 'running', 'paused', 'succeeded', 'failed', 'cancelled'"
PURPOSES = "'fine-tune', 'fine-tune-results'"
UNDECIDED = (
    "decided_at IS NOT NULL OR (state IN ('validating_files', 'failed', 'cancelled')"
    " AND price_tokens = 0 AND step = 0 AND started_at IS NULL)"
)
# table -> what roles may with it
GRANTS = {
    "validations": {"onward_api": "SELECT, INSERT, UPDATE, DELETE", "onward_scheduler": "SELECT"},
    "token_counts": {
        "onward_api": "SELECT, INSERT, DELETE",
        "onward_worker": "SELECT (file_id, tenant_id), DELETE",  # with the bytes of a file that nobody needs any more
    },
    "uploads": {"onward_api": "SELECT, INSERT, UPDATE (status, file_id)"},
    "upload_parts": {"onward_api": "SELECT, INSERT, DELETE"},
}
# What was accepted is rewritten by no process. The rows decide it once, so the grant alone cannot say it.
ACCEPTED = """
CREATE FUNCTION onward_accepted() RETURNS trigger LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    RAISE insufficient_privilege USING MESSAGE = 'what was accepted is not rewritten';
END $$;
CREATE TRIGGER accepted BEFORE UPDATE OF spec, request, total_steps, price_tokens, decided_at ON jobs FOR EACH ROW
    WHEN (OLD.decided_at IS NOT NULL AND current_user = 'onward_api') EXECUTE FUNCTION onward_accepted();
"""
# Whose what expires is; of all tenants, and nothing else of it.
EXPIRED = """
CREATE FUNCTION onward_expired(most integer) RETURNS TABLE (kind text, id varchar, tenant_id varchar)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    (SELECT 'file', f.id, f.tenant_id FROM files f
      WHERE f.expires_at IS NOT NULL AND f.deleted_at IS NULL AND f.expires_at < clock_timestamp()
      ORDER BY f.expires_at LIMIT most)
    UNION ALL
    (SELECT 'upload', u.id, u.tenant_id FROM uploads u
      WHERE u.status = 'pending' AND u.expires_at < clock_timestamp() ORDER BY u.expires_at LIMIT most)
$$;
REVOKE ALL ON FUNCTION onward_expired(integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION onward_expired(integer) TO onward_api;
"""


def upgrade() -> None:
    lock_all(op.get_bind())
    op.execute("SET LOCAL lock_timeout = '5s'")
    _jobs()
    _files()
    _uploads()
    for table, roles in GRANTS.items():
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY")
        op.execute(f"CREATE POLICY owner ON {table} TO CURRENT_USER USING (true) WITH CHECK (true)")
        op.execute(f"CREATE POLICY tenant ON {table} TO onward_api, onward_worker USING (tenant_id = {TENANT})")
        for role, privileges in roles.items():
            op.execute(f"GRANT {privileges} ON {table} TO {role}")
    op.execute("CREATE POLICY scheduler ON validations TO onward_scheduler USING (true)")
    op.execute(
        "GRANT SELECT (decided_at), UPDATE (spec, request, total_steps, price_tokens, decided_at) ON jobs TO onward_api"
    )
    op.execute("GRANT SELECT (decided_at) ON jobs TO onward_scheduler")
    op.execute("GRANT UPDATE (expires_at) ON files TO onward_api")
    op.execute(ACCEPTED)
    op.execute(EXPIRED)


def _jobs() -> None:
    op.add_column(
        "jobs", sa.Column("decided_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=True)
    )
    _check("jobs", "state", f"state IN ('validating_files', {STATES})")
    op.create_check_constraint(op.f("ck_jobs_undecided_has_no_price"), "jobs", UNDECIDED)
    validating = "state <> 'validating_files' OR decided_at IS NULL"
    op.create_check_constraint(op.f("ck_jobs_validating_is_undecided"), "jobs", validating)
    op.create_table(
        "validations",
        sa.Column("job_id", sa.String(), nullable=False),
        sa.Column("tenant_id", sa.String(), nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("holder", sa.String(), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        *(sa.Column(n, sa.Integer(), server_default=sa.text("0"), nullable=False) for n in ("rows", "tries")),
        _created(),
        _owned("job_id", "jobs", "fk_validations_job"),
        sa.CheckConstraint("(holder IS NULL) = (expires_at IS NULL)", name=op.f("ck_validations_held_for_a_time")),
        sa.CheckConstraint("rows >= 0 AND tries >= 0", name=op.f("ck_validations_counts")),
        sa.PrimaryKeyConstraint("job_id", name=op.f("pk_validations")),
    )


def _files() -> None:
    op.add_column("files", sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True))
    expiring = sa.text("expires_at IS NOT NULL AND deleted_at IS NULL")
    op.create_index("ix_files_expires_at", "files", ["expires_at"], postgresql_where=expiring)
    _check("files", "purpose", f"purpose IN ({PURPOSES}, 'upload-part')")
    op.create_table(
        "token_counts",
        *(sa.Column(n, sa.String(), nullable=False) for n in ("file_id", "base", "invocation", "tenant_id")),
        *(sa.Column(n, sa.LargeBinary(), nullable=False) for n in ("visit", "once")),
        sa.Column("targets", sa.BigInteger(), nullable=False),
        sa.Column("tail", postgresql.JSONB(), nullable=False),
        _created(),
        _owned("file_id", "files", "fk_token_counts_file"),
        sa.PrimaryKeyConstraint("file_id", "base", "invocation", name=op.f("pk_token_counts")),
    )


def _uploads() -> None:
    op.create_table(
        "uploads",
        *(sa.Column(n, sa.String(), nullable=False) for n in ("id", "tenant_id", "filename", "purpose")),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("expires_after", sa.Integer(), nullable=True),
        sa.Column("status", sa.String(), server_default="pending", nullable=False),
        sa.Column("file_id", sa.String(), nullable=True),
        _created(),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_uploads_tenant_id")),
        _owned("file_id", "files", "fk_uploads_file"),
        sa.CheckConstraint(
            "status IN ('pending', 'completed', 'cancelled', 'expired')", name=op.f("ck_uploads_status")
        ),
        sa.CheckConstraint(
            "(status = 'completed') = (file_id IS NOT NULL)", name=op.f("ck_uploads_completed_has_a_file")
        ),
        sa.CheckConstraint("bytes > 0 AND expires_after > 0", name=op.f("ck_uploads_size")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_uploads")),
        sa.UniqueConstraint("tenant_id", "id", name=op.f("uq_uploads_tenant_id_id")),
    )
    op.create_index("ix_uploads_expires_at", "uploads", ["expires_at"], postgresql_where=sa.text("status = 'pending'"))
    op.create_table(
        "upload_parts",
        *(sa.Column(n, sa.String(), nullable=False) for n in ("id", "tenant_id", "upload_id", "file_id")),
        _created(),
        _owned("upload_id", "uploads", "fk_upload_parts_upload"),
        _owned("file_id", "files", "fk_upload_parts_file"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_upload_parts")),
    )
    op.create_index("ix_upload_parts_tenant_id_upload_id", "upload_parts", ["tenant_id", "upload_id"])


def _check(table: str, name: str, rule: str) -> None:
    op.drop_constraint(op.f(f"ck_{table}_{name}"), table)
    op.create_check_constraint(op.f(f"ck_{table}_{name}"), table, rule)


def _created() -> sa.Column[sa.DateTime]:
    return sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False)


def _owned(column: str, table: str, name: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(["tenant_id", column], [f"{table}.tenant_id", f"{table}.id"], name=name)


def downgrade() -> None:
    op.execute("DROP FUNCTION onward_expired(integer)")
    op.execute("DROP TRIGGER accepted ON jobs")
    op.execute("DROP FUNCTION onward_accepted()")
    for table in ("upload_parts", "uploads", "token_counts", "validations"):
        op.drop_table(table)
    # The code before has no word for these. Their rows are kept as what they are to it: a job that came to nothing, and
    # a file that was deleted.
    op.execute("""
        UPDATE jobs SET state = 'failed', finished_at = now(), error = '{"code": "server_error", "param": null,
            "message": "The release that was gone back to counts no tokens beside its requests: ask for the job again."}'
         WHERE state = 'validating_files'
    """)
    op.execute("DELETE FROM file_chunks c USING files f WHERE f.id = c.file_id AND f.purpose = 'upload-part'")
    op.execute("DELETE FROM files WHERE purpose = 'upload-part'")
    op.execute("REVOKE UPDATE (spec, request, total_steps, price_tokens) ON jobs FROM onward_api")
    for name in ("validating_is_undecided", "undecided_has_no_price"):
        op.drop_constraint(op.f(f"ck_jobs_{name}"), "jobs")
    _check("jobs", "state", f"state IN ({STATES})")
    _check("files", "purpose", f"purpose IN ({PURPOSES})")
    op.drop_column("jobs", "decided_at")
    op.drop_index("ix_files_expires_at", table_name="files")
    op.drop_column("files", "expires_at")
