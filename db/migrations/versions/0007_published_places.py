"""where in its topic an announcement is to be found"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0007"
down_revision: str | None = "0006"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    op.add_column("positions", sa.Column("witness_partition", sa.Integer(), nullable=True))
    op.add_column("positions", sa.Column("witness_from_offset", sa.BigInteger(), nullable=True))
    op.add_column("positions", sa.Column("acknowledged_partition", sa.Integer(), nullable=True))
    op.add_column("positions", sa.Column("acknowledged_from_offset", sa.BigInteger(), nullable=True))


def downgrade() -> None:
    op.drop_column("positions", "acknowledged_from_offset")
    op.drop_column("positions", "acknowledged_partition")
    op.drop_column("positions", "witness_from_offset")
    op.drop_column("positions", "witness_partition")
