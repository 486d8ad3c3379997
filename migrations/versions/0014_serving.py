"""Serving: what a worker offers, what a key may, and what a tenant was served

`api_keys.scopes` is null for keys that the release before makes: they keep what their `scope` says. A key with scopes has
in `scope` what the release before may take it for while it serves: `read` unless it trains. Expands only.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from migrations.locks import lock_all

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

TENANT = "(SELECT NULLIF(current_setting('onward.tenant', true), ''))"
RIGHTS = "scopes IS NULL OR (scopes <@ ARRAY['train', 'serve', 'read']::varchar[] AND cardinality(scopes) > 0 AND scope <> 'operator')"
GRANTS = """
    GRANT SELECT, INSERT ON served TO onward_api;
    GRANT SELECT, INSERT, UPDATE ON served_days TO onward_api;
    GRANT UPDATE (served_tokens) ON tenants TO onward_api;
    GRANT SELECT (tenant_id, request, at), DELETE ON served TO onward_retention;
    GRANT SELECT (tenant_id, day), DELETE ON served_days TO onward_retention
"""


def upgrade() -> None:
    lock_all(op.get_bind())
    op.add_column("workers", sa.Column("serving", postgresql.JSONB(none_as_null=True), nullable=True))
    op.add_column("api_keys", sa.Column("scopes", postgresql.ARRAY(sa.String()), nullable=True))
    op.create_check_constraint(op.f("ck_api_keys_scopes"), "api_keys", RIGHTS)
    for limit in ("serve_quota", "daily_serve_tokens"):
        op.add_column("tenants", sa.Column(limit, sa.BigInteger(), nullable=True))
    served = sa.Column("served_tokens", sa.BigInteger(), server_default=sa.text("0"), nullable=False)
    op.add_column("tenants", served)
    limits = "serve_quota >= 0 AND daily_serve_tokens >= 0 AND served_tokens >= 0"
    op.create_check_constraint(op.f("ck_tenants_serving"), "tenants", limits)
    _tables()
    for table in ("served", "served_days"):
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY")
        op.execute(f"CREATE POLICY owner ON {table} TO CURRENT_USER USING (true) WITH CHECK (true)")
        op.execute(f"CREATE POLICY tenant ON {table} TO onward_api, onward_worker USING (tenant_id = {TENANT})")
        op.execute(f"CREATE POLICY retention ON {table} TO onward_retention USING (true)")
    op.execute(GRANTS)


def _tables() -> None:
    def counts() -> list[sa.Column[int]]:
        return [sa.Column(name, sa.BigInteger(), nullable=False) for name in ("prompt", "cached", "completion")]

    whole = "prompt >= 0 AND cached >= 0 AND completion >= 0"
    op.create_table(
        "served",
        sa.Column("tenant_id", sa.String(), nullable=False),
        sa.Column("request", sa.String(), nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        *counts(),
        sa.CheckConstraint(whole, name=op.f("ck_served_whole")),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_served_tenant_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("tenant_id", "request", name=op.f("pk_served")),
    )
    op.create_index("ix_served_at", "served", ["at"])
    op.create_table(
        "served_days",
        sa.Column("tenant_id", sa.String(), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        *counts(),
        sa.CheckConstraint(whole, name=op.f("ck_served_days_whole")),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_served_days_tenant_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("tenant_id", "day", name=op.f("pk_served_days")),
    )


def downgrade() -> None:
    op.drop_table("served_days")
    op.drop_table("served")
    op.drop_constraint(op.f("ck_tenants_serving"), "tenants")
    for column in ("served_tokens", "daily_serve_tokens", "serve_quota"):
        op.drop_column("tenants", column)
    op.drop_constraint(op.f("ck_api_keys_scopes"), "api_keys")
    op.drop_column("api_keys", "scopes")
    op.drop_column("workers", "serving")
