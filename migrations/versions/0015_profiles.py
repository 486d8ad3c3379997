"""Profiles: files made once for a base, which jobs of any tenant name by their hash

Of no tenant: whoever serves reads them, who owns the tables adds them, and nobody changes one. Expands only.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "profiles",
        sa.Column("sha256", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("base", sa.String(), nullable=False),
        sa.Column("layout", sa.String(), nullable=False),
        sa.Column("about", postgresql.JSONB(), nullable=False),
        sa.Column("bytes", sa.Integer(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("sha256", name=op.f("pk_profiles")),
        sa.CheckConstraint("kind IN ('factors', 'mask', 'basis', 'mlp')", name=op.f("ck_profiles_kind")),
        sa.CheckConstraint("bytes > 0 AND bytes = octet_length(data)", name=op.f("ck_profiles_whole")),
        sa.CheckConstraint("sha256 = encode(sha256(data), 'hex')", name=op.f("ck_profiles_named_by_its_bytes")),
    )
    op.create_index("ix_profiles_base", "profiles", ["base"])
    op.execute("GRANT SELECT ON profiles TO onward_api, onward_worker")


def downgrade() -> None:
    op.drop_table("profiles")
