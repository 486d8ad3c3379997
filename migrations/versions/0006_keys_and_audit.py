"""Keys' scopes, ends and last use; the audit log

Expands only: the code before makes keys of scope `tenant` without an end, and knows no audit. It also knows no scope: while
it serves, a key of scope `read` may write and an end is not kept; a key of scope `operator` has no tenant and opens nothing.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from migrations.locks import lock_all

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    lock_all(op.get_bind())
    op.execute("SET LOCAL lock_timeout = '5s'")  # waiting for the lock would hold up everyone behind it
    op.add_column("api_keys", sa.Column("scope", sa.String(), server_default="tenant", nullable=False))
    op.add_column("api_keys", sa.Column("name", sa.String(), nullable=True))
    op.add_column("api_keys", sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("api_keys", sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True))
    op.alter_column("api_keys", "tenant_id", nullable=True)
    op.create_check_constraint(op.f("ck_api_keys_scope"), "api_keys", "scope IN ('tenant', 'read', 'operator')")
    op.create_check_constraint(
        op.f("ck_api_keys_only_operators_have_no_tenant"), "api_keys", "(scope = 'operator') = (tenant_id IS NULL)"
    )
    op.create_table(
        "audit",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.Column("tenant_id", sa.String(), nullable=True),
        sa.Column("actor", sa.String(), nullable=False),
        sa.Column("action", sa.String(), nullable=False),
        sa.Column("object", sa.String(), nullable=False),
        sa.Column("request", sa.String(), nullable=True),
        sa.Column("data", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit")),
    )
    op.create_index("ix_audit_tenant_id_at_id", "audit", ["tenant_id", "at", "id"], unique=False)
    op.create_index("ix_audit_at_id", "audit", ["at", "id"], unique=False)


def downgrade() -> None:
    op.drop_index("ix_audit_at_id", table_name="audit")
    op.drop_index("ix_audit_tenant_id_at_id", table_name="audit")
    op.drop_table("audit")
    op.drop_constraint(op.f("ck_api_keys_only_operators_have_no_tenant"), "api_keys", type_="check")
    op.drop_constraint(op.f("ck_api_keys_scope"), "api_keys", type_="check")
    op.execute("DELETE FROM api_keys WHERE tenant_id IS NULL")
    op.alter_column("api_keys", "tenant_id", nullable=False)
    for column in ("last_used_at", "expires_at", "name", "scope"):
        op.drop_column("api_keys", column)
