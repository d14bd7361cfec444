"""headers of an order that each publication of its outcome carries on"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0013"
down_revision: str | None = "0012"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    # Without a value: no row is written again, and workers of before continue writing without it.
    op.add_column("order_outcomes", sa.Column("passed_on", sa.Text(), nullable=True))


def downgrade() -> None:
    op.drop_column("order_outcomes", "passed_on")
