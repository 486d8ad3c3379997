"""Measures that may be absent

Accuracy: null where it was not measured, as nothing was of `lm` jobs before: their zeros were none. Repeated rows of a
file: null where they were not counted, as of files before. A worker's rate: null until it has scored. Expands only.
"""

import sqlalchemy as sa
from alembic import op

from migrations.locks import lock_all

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


LM = "EXISTS (SELECT FROM jobs WHERE jobs.id = evaluations.job_id AND jobs.spec ->> 'objective' = 'lm')"


def upgrade() -> None:
    lock_all(op.get_bind())
    op.alter_column("evaluations", "accuracy", nullable=True)
    op.execute(f"UPDATE evaluations SET accuracy = NULL WHERE accuracy = 0 AND {LM}")
    op.add_column("files", sa.Column("repeated_rows", sa.Integer(), nullable=True))
    op.add_column("workers", sa.Column("rate", sa.Float(), nullable=True))


def downgrade() -> None:
    op.drop_column("workers", "rate")
    op.drop_column("files", "repeated_rows")
    op.execute("UPDATE evaluations SET accuracy = 0 WHERE accuracy IS NULL")
    op.alter_column("evaluations", "accuracy", nullable=False)
