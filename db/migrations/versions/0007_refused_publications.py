"""where in its topic a publication is to be found, and which outcomes their topic refuses"""

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

    op.create_table(
        "withheld_outcomes",
        sa.Column("order_id", sa.Uuid(), nullable=False),
        sa.Column("topic", sa.Text(), nullable=False),
        sa.Column("source_topic", sa.Text(), nullable=False),
        sa.Column("source_partition", sa.Integer(), nullable=False),
        sa.Column("source_offset", sa.BigInteger(), nullable=False),
        sa.Column("headers", sa.Text(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("what_to_do", sa.Text(), nullable=False),
        sa.Column("withheld_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("tried_partition", sa.Integer(), nullable=True),
        sa.Column("tried_from_offset", sa.BigInteger(), nullable=True),
        sa.Column("published_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("order_id", name=op.f("pk_withheld_outcomes")),
    )


def downgrade() -> None:
    op.drop_table("withheld_outcomes")
    op.drop_column("positions", "acknowledged_from_offset")
    op.drop_column("positions", "acknowledged_partition")
    op.drop_column("positions", "witness_from_offset")
    op.drop_column("positions", "witness_partition")
