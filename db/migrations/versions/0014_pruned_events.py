"""a row of the ledger outlives its event

Back to an older version: a pruned event becomes JSON's null, which that version takes for an empty event. The
same order again is a duplicate there, too.
"""

from collections.abc import Sequence

from alembic import op

revision: str = "0014"
down_revision: str | None = "0013"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    # A change of the catalogue alone, and workers of before continue writing an event with each row.
    op.alter_column("order_outcomes", "event", nullable=True)


def downgrade() -> None:
    op.execute("UPDATE order_outcomes SET event = 'null' WHERE event IS NULL")
    op.alter_column("order_outcomes", "event", nullable=False)
