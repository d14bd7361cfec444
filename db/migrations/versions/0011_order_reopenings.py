"""which rejected orders were placed again, and under which id"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0011"
down_revision: str | None = "0010"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "order_reopenings",
        sa.Column("order_id", sa.Uuid(), nullable=False),
        sa.Column("new_order_id", sa.Uuid(), nullable=False),
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column("requested_by", sa.Text(), nullable=False),
        sa.Column(
            "requested_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.Column("drop_prices", sa.Boolean(), nullable=False),
        sa.Column("topic", sa.Text(), nullable=False),
        sa.Column("source_partition", sa.Integer(), nullable=False),
        sa.Column("source_offset", sa.BigInteger(), nullable=False),
        sa.Column("input_partition", sa.Integer(), nullable=False),
        sa.Column("input_from", sa.BigInteger(), nullable=False),
        sa.Column("input_offset", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("order_id", name=op.f("pk_order_reopenings")),
        sa.UniqueConstraint("new_order_id", name=op.f("uq_order_reopenings_new_order_id")),
    )
    op.create_index(
        op.f("ix_order_reopenings_unsent"),
        "order_reopenings",
        ["run_id", "source_partition", "source_offset"],
        unique=False,
        postgresql_where=sa.text("input_offset IS NULL"),
    )


def downgrade() -> None:
    op.drop_index(
        op.f("ix_order_reopenings_unsent"),
        table_name="order_reopenings",
        postgresql_where=sa.text("input_offset IS NULL"),
    )
    op.drop_table("order_reopenings")
