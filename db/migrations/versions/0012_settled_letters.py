"""settled dead letters, edits of several fields, and rejected orders known by their sorted lines"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0012"
down_revision: str | None = "0011"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    # Without a value: no row is written again, and workers of before continue writing without it.
    op.add_column("order_outcomes", sa.Column("sorted_fingerprint", sa.LargeBinary(), nullable=True))
    op.add_column("dead_letter_redrives", sa.Column("changes", sa.Text(), nullable=True))
    op.create_table(
        "settled_letters",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("letter_topic", sa.Text(), nullable=False),
        sa.Column("letter_partition", sa.Integer(), nullable=False),
        sa.Column("letter_offset", sa.BigInteger(), nullable=False),
        sa.Column("source_topic", sa.Text(), nullable=False),
        sa.Column("source_partition", sa.Integer(), nullable=False),
        sa.Column("source_offset", sa.BigInteger(), nullable=False),
        sa.Column("source_timestamp_ms", sa.BigInteger(), nullable=False),
        sa.Column("requested_by", sa.Text(), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column(
            "requested_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_settled_letters")),
        sa.UniqueConstraint(
            "source_topic",
            "source_partition",
            "source_offset",
            "source_timestamp_ms",
            name=op.f("uq_settled_letters_source_topic"),
        ),
    )


def downgrade() -> None:
    op.drop_table("settled_letters")
    op.drop_column("dead_letter_redrives", "changes")
    op.drop_column("order_outcomes", "sorted_fingerprint")
