"""when a category or product was created

Rows that are there get the time of this upgrade. PostgreSQL keeps it beside the table, so that no row is
written.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0009"
down_revision: str | None = "0008"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    for table in ("categories", "products"):
        op.add_column(
            table,
            sa.Column(
                "created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
            ),
        )


def downgrade() -> None:
    op.drop_column("products", "created_at")
    op.drop_column("categories", "created_at")
