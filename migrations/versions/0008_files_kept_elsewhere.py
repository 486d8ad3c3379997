"""Files kept elsewhere: where each lies, what is to go from there, and by which name a store knows this installation

Expands only: code before reads and writes file_chunks, and finds no bytes of what lies elsewhere.
"""

import sqlalchemy as sa
from alembic import op

from migrations.locks import lock_all

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

TENANT = "(SELECT NULLIF(current_setting('onward.tenant', true), ''))"
MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    lock_all(op.get_bind())
    op.add_column("files", sa.Column("store", sa.String(), nullable=True))
    op.create_table(
        "doomed_objects",
        sa.Column("tenant_id", sa.String(), nullable=False),
        sa.Column("store", sa.String(), nullable=False),
        sa.Column("file_id", sa.String(), nullable=False),
        sa.Column("due_at", MOMENT, server_default=sa.func.now(), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "store", "file_id", name=op.f("pk_doomed_objects")),
    )
    op.create_index("ix_doomed_objects_due_at", "doomed_objects", ["due_at"])
    op.create_table(
        "installation",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("swept_at", MOMENT, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_installation")),
    )
    op.execute("INSERT INTO installation (id) VALUES (gen_random_uuid())")
    op.execute("ALTER TABLE doomed_objects ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY")
    op.execute("CREATE POLICY owner ON doomed_objects TO CURRENT_USER USING (true) WITH CHECK (true)")
    op.execute(f"CREATE POLICY tenant ON doomed_objects TO onward_api, onward_worker USING (tenant_id = {TENANT})")
    op.execute("CREATE POLICY retention ON doomed_objects TO onward_retention USING (true)")
    op.execute("CREATE POLICY retention ON files TO onward_retention USING (true)")
    op.execute("GRANT SELECT, INSERT ON doomed_objects TO onward_api, onward_worker")
    op.execute("GRANT SELECT, DELETE, UPDATE (due_at) ON doomed_objects TO onward_retention")
    op.execute("GRANT SELECT (id) ON files TO onward_retention")
    op.execute("GRANT SELECT ON installation TO onward_api, onward_worker, onward_retention")
    op.execute("GRANT UPDATE (swept_at) ON installation TO onward_retention")


def downgrade() -> None:
    op.execute("DROP POLICY retention ON files")
    op.execute("REVOKE SELECT (id) ON files FROM onward_retention")
    op.drop_table("installation")
    op.drop_table("doomed_objects")
    op.drop_column("files", "store")
