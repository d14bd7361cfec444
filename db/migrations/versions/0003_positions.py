"""how far each partition is announced"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0003"
down_revision: str | None = "0002"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "positions",
        sa.Column("group_id", sa.Text(), nullable=False),
        sa.Column("topic", sa.Text(), nullable=False),
        sa.Column("partition", sa.Integer(), nullable=False),
        sa.Column("turn", sa.BigInteger(), nullable=False),
        sa.Column("announced_to", sa.BigInteger(), nullable=True),
        sa.Column("begun_to", sa.BigInteger(), nullable=True),
        sa.Column("last_timestamp_ms", sa.BigInteger(), nullable=True),
        sa.Column("witness_topic", sa.Text(), nullable=True),
        sa.Column("witness_timestamp_ms", sa.BigInteger(), nullable=True),
        sa.Column("witness_digest", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("group_id", "topic", "partition", name=op.f("pk_positions")),
    )


def downgrade() -> None:
    op.drop_table("positions")
