"""who may publish for a partition: the transactional id of a worker process

Workers of before have one producer a partition, and know nothing of the lease. They find the column `turn`
no more, so that they decide nothing beside workers of this version: PostgreSQL refuses, and they wait.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0008"
down_revision: str | None = "0007"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    op.alter_column("positions", "turn", new_column_name="epoch")
    op.add_column("positions", sa.Column("transactional_id", sa.Text(), nullable=True))
    op.add_column("positions", sa.Column("begun_by", sa.Text(), nullable=True))
    op.add_column("positions", sa.Column("acknowledged_by", sa.Text(), nullable=True))
    # As workers of before name their producers: the first owner of this version fences them.
    op.execute("UPDATE positions SET transactional_id = group_id || '.' || topic || '.' || partition")
    op.execute("UPDATE positions SET begun_by = transactional_id, acknowledged_by = transactional_id")


def downgrade() -> None:
    op.drop_column("positions", "acknowledged_by")
    op.drop_column("positions", "begun_by")
    op.drop_column("positions", "transactional_id")
    op.alter_column("positions", "epoch", new_column_name="turn")
