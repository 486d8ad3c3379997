"""Limits of a tenant

Expands only: a tenant's storage is limited by the setting until it has a limit of its own, and an adapter is there
until it is deleted. Adapters whose file the code before has deleted are deleted now.
"""

import sqlalchemy as sa
from alembic import op

from migrations.locks import lock_all

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    lock_all(op.get_bind())
    op.execute("SET LOCAL lock_timeout = '5s'")  # waiting for a lock would hold up everyone behind it
    op.add_column("tenants", sa.Column("max_bytes", sa.BigInteger(), nullable=True))
    op.create_check_constraint(op.f("ck_tenants_max_bytes"), "tenants", "max_bytes >= 0")
    op.add_column("adapters", sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True))
    op.execute(
        "UPDATE adapters SET deleted_at = files.deleted_at FROM files"
        " WHERE files.id = adapters.file_id AND files.deleted_at IS NOT NULL"
    )
    op.create_index(
        "ix_adapters_deleted_at", "adapters", ["deleted_at"], postgresql_where=sa.text("deleted_at IS NOT NULL")
    )
    op.create_index(
        "ix_files_held",
        "files",
        ["tenant_id"],
        postgresql_include=["bytes"],
        postgresql_where=sa.text("deleted_at IS NULL"),
    )


def downgrade() -> None:
    op.drop_index("ix_files_held", table_name="files")
    op.drop_index("ix_adapters_deleted_at", table_name="adapters")
    op.drop_column("adapters", "deleted_at")
    op.drop_constraint(op.f("ck_tenants_max_bytes"), "tenants")
    op.drop_column("tenants", "max_bytes")
