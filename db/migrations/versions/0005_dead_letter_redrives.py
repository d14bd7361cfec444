"""which dead letters were sent again, and what came of it"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0005"
down_revision: str | None = "0004"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "dead_letter_redrives",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column("group_id", sa.Text(), nullable=False),
        sa.Column("requested_by", sa.Text(), nullable=False),
        sa.Column(
            "requested_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.Column("letter_topic", sa.Text(), nullable=False),
        sa.Column("letter_partition", sa.Integer(), nullable=False),
        sa.Column("letter_offset", sa.BigInteger(), nullable=False),
        sa.Column("source_topic", sa.Text(), nullable=False),
        sa.Column("source_partition", sa.Integer(), nullable=False),
        sa.Column("source_offset", sa.BigInteger(), nullable=False),
        sa.Column("error_code", sa.Text(), nullable=False),
        sa.Column("error_path", sa.Text(), nullable=False),
        sa.Column("changed_field", sa.Text(), nullable=True),
        sa.Column("old_value", sa.Text(), nullable=True),
        sa.Column("new_value", sa.Text(), nullable=True),
        sa.Column("input_partition", sa.Integer(), nullable=False),
        sa.Column("input_from", sa.BigInteger(), nullable=False),
        sa.Column("status", sa.String(length=16), server_default="claimed", nullable=False),
        sa.Column("input_offset", sa.BigInteger(), nullable=True),
        sa.Column("result", sa.Text(), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "status IN ('claimed', 'sent', 'decided', 'failed', 'duplicate')",
            name=op.f("ck_dead_letter_redrives_status"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_dead_letter_redrives")),
        sa.UniqueConstraint(
            "source_topic",
            "source_partition",
            "source_offset",
            name=op.f("uq_dead_letter_redrives_source_topic"),
        ),
    )
    op.create_index(
        op.f("ix_dead_letter_redrives_unfinished"),
        "dead_letter_redrives",
        ["run_id", "letter_partition", "letter_offset"],
        unique=False,
        postgresql_where=sa.text("status IN ('claimed', 'sent')"),
    )


def downgrade() -> None:
    op.drop_index(
        op.f("ix_dead_letter_redrives_unfinished"),
        table_name="dead_letter_redrives",
        postgresql_where=sa.text("status IN ('claimed', 'sent')"),
    )
    op.drop_table("dead_letter_redrives")
