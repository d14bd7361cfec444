"""the batch before the one that is announced"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0004"
down_revision: str | None = "0003"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    op.add_column("positions", sa.Column("acknowledged_from", sa.BigInteger(), nullable=True))
    op.add_column("positions", sa.Column("acknowledged_topic", sa.Text(), nullable=True))
    op.add_column("positions", sa.Column("acknowledged_timestamp_ms", sa.BigInteger(), nullable=True))
    op.add_column("positions", sa.Column("acknowledged_digest", sa.LargeBinary(), nullable=True))


def downgrade() -> None:
    op.drop_column("positions", "acknowledged_digest")
    op.drop_column("positions", "acknowledged_timestamp_ms")
    op.drop_column("positions", "acknowledged_topic")
    op.drop_column("positions", "acknowledged_from")
