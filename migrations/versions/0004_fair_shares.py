"""Fair shares

Expands only. Two triggers stand in for code that the release before does not have: an event is numbered, and a tenant
whose job waits has a share.
"""

import sqlalchemy as sa
from alembic import op

from migrations.locks import lock_all

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

WAITING = sa.text("state IN ('queued', 'running')")
UNFINISHED = sa.text("finished_at IS NULL")
HELD_OUT = sa.text("finished_at IS NULL AND validation_file IS NOT NULL")
ENDED = sa.text("finished_at IS NOT NULL")

# Whoever writes an event holds its job's row; who does not waits here. So numbers have neither gap nor double.
NUMBER = """
CREATE FUNCTION onward_number_event() RETURNS trigger LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM 1 FROM jobs WHERE id = NEW.job_id FOR NO KEY UPDATE;
    NEW.number := coalesce((SELECT max(number) FROM events WHERE job_id = NEW.job_id), 0) + 1;
    RETURN NEW;
END $$;
CREATE TRIGGER number_event BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION onward_number_event();
"""
# The row is locked against deletion, not against charges: what prunes shares skips those that are locked, and looks for
# jobs in a statement that begins after it has the lock (db/shares.py).
SHARE = """
CREATE FUNCTION onward_share() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    LOOP
        PERFORM 1 FROM shares WHERE model = NEW.model AND tenant_id = NEW.tenant_id FOR KEY SHARE;
        EXIT WHEN FOUND;
        INSERT INTO shares (model, tenant_id, finish)
        VALUES (NEW.model, NEW.tenant_id, coalesce((SELECT virtual FROM clocks WHERE model = NEW.model), 0))
        ON CONFLICT DO NOTHING;
    END LOOP;
    RETURN NULL;
END $$;
CREATE TRIGGER share_of_new AFTER INSERT ON jobs FOR EACH ROW
    WHEN (NEW.state IN ('queued', 'running')) EXECUTE FUNCTION onward_share();
CREATE TRIGGER share_of_resumed AFTER UPDATE OF state ON jobs FOR EACH ROW
    WHEN (OLD.state NOT IN ('queued', 'running') AND NEW.state IN ('queued', 'running'))
    EXECUTE FUNCTION onward_share();
"""


def upgrade() -> None:
    lock_all(op.get_bind())
    op.execute("SET LOCAL lock_timeout = '5s'")  # waiting for the locks would hold up everyone behind it
    _tables()
    op.add_column("tenants", sa.Column("max_running", sa.Integer(), nullable=True))
    op.add_column("tenants", sa.Column("daily_tokens", sa.BigInteger(), nullable=True))
    op.create_check_constraint(op.f("ck_tenants_share"), "tenants", "max_running > 0 AND daily_tokens >= 0")
    op.add_column("jobs", sa.Column("priority", sa.SmallInteger(), server_default=sa.text("0"), nullable=False))
    op.add_column("jobs", sa.Column("expected_start", sa.DateTime(timezone=True), nullable=True))
    op.create_check_constraint(op.f("ck_jobs_priority"), "jobs", "priority BETWEEN -100 AND 100")
    turn = ["model", "tenant_id", sa.text("priority DESC"), "created_at", "id"]
    op.create_index("ix_jobs_turn", "jobs", turn, postgresql_include=["price_tokens"], postgresql_where=WAITING)
    op.create_index("ix_jobs_training_file", "jobs", ["training_file"], postgresql_where=UNFINISHED)
    op.create_index("ix_jobs_validation_file", "jobs", ["validation_file"], postgresql_where=HELD_OUT)
    op.create_index("ix_jobs_finished_at", "jobs", ["finished_at", "id"], postgresql_where=ENDED)
    metadata = sa.literal_column("(request -> 'metadata')").label("metadata")
    paths = {"metadata": "jsonb_path_ops"}
    op.create_index("ix_jobs_metadata", "jobs", [metadata], postgresql_using="gin", postgresql_ops=paths)
    _events()
    op.execute(SHARE)
    op.execute(
        f"INSERT INTO shares (model, tenant_id, finish) SELECT DISTINCT model, tenant_id, 0 FROM jobs WHERE {WAITING}"
    )


def _tables() -> None:
    tenant = sa.ForeignKeyConstraint
    op.create_table(
        "shares",
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("tenant_id", sa.String(), nullable=False),
        sa.Column("finish", sa.Float(), nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False),
        tenant(["tenant_id"], ["tenants.id"], name=op.f("fk_shares_tenant_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("model", "tenant_id", name=op.f("pk_shares")),
    )
    op.create_index("ix_shares_turn", "shares", ["model", "finish", "since", "tenant_id"])
    op.create_table(
        "clocks",
        sa.Column("model", sa.String(), nullable=False),
        *(
            sa.Column(name, sa.Float(), server_default=sa.text("0"), nullable=False)
            for name in ("virtual", "rate", "weights")
        ),
        sa.Column("places", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("slice_seconds", sa.Float(), server_default=sa.text("0"), nullable=False),
        sa.Column("noted_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("rate >= 0 AND weights >= 0 AND places >= 0", name=op.f("ck_clocks_outlook")),
        sa.PrimaryKeyConstraint("model", name=op.f("pk_clocks")),
    )
    op.create_table(
        "usage",
        sa.Column("minute", sa.DateTime(timezone=True), nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("tenant_id", sa.String(), nullable=False),
        sa.Column("tokens", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("tokens >= 0", name=op.f("ck_usage_tokens")),
        tenant(["tenant_id"], ["tenants.id"], name=op.f("fk_usage_tenant_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("minute", "model", "tenant_id", name=op.f("pk_usage")),
    )
    op.create_table(
        "usage_days",
        sa.Column("tenant_id", sa.String(), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("tokens", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("tokens >= 0", name=op.f("ck_usage_days_tokens")),
        tenant(["tenant_id"], ["tenants.id"], name=op.f("fk_usage_days_tenant_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("tenant_id", "day", name=op.f("pk_usage_days")),
    )
    op.create_table(
        "pruned",
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("job_id", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("kind", name=op.f("pk_pruned")),
    )


def _events() -> None:
    op.add_column("events", sa.Column("number", sa.Integer(), server_default=sa.text("0"), nullable=False))
    op.execute("""
        UPDATE events SET number = counted.number
          FROM (SELECT id, row_number() OVER (PARTITION BY job_id ORDER BY id) AS number FROM events) counted
         WHERE counted.id = events.id
    """)
    op.create_unique_constraint(op.f("uq_events_job_id_number"), "events", ["job_id", "number"])
    op.execute(NUMBER)


def downgrade() -> None:
    op.execute("DROP TRIGGER share_of_new ON jobs")
    op.execute("DROP TRIGGER share_of_resumed ON jobs")
    op.execute("DROP FUNCTION onward_share()")
    op.execute("DROP TRIGGER number_event ON events")
    op.execute("DROP FUNCTION onward_number_event()")
    op.drop_constraint(op.f("uq_events_job_id_number"), "events")
    op.drop_column("events", "number")
    for name in ("metadata", "finished_at", "validation_file", "training_file", "turn"):
        op.drop_index(f"ix_jobs_{name}", table_name="jobs")
    op.drop_column("jobs", "expected_start")
    op.drop_column("jobs", "priority")
    op.drop_constraint(op.f("ck_tenants_share"), "tenants")
    op.drop_column("tenants", "daily_tokens")
    op.drop_column("tenants", "max_running")
    for table in ("pruned", "usage_days", "usage", "clocks", "shares"):
        op.drop_table(table)
