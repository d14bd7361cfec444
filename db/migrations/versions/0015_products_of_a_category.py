"""the first products of a category, however many others there are"""

from collections.abc import Sequence

from alembic import op

from db.migrations.indexes import create_concurrently, drop_concurrently

revision: str = "0015"
down_revision: str | None = "0014"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None

is_concurrent = True


def upgrade() -> None:
    create_concurrently(op.f("ix_products_category_id_id"), "products", ["category_id", "id"])
    drop_concurrently(op.f("ix_products_category_id"), "products")


def downgrade() -> None:
    create_concurrently(op.f("ix_products_category_id"), "products", ["category_id"])
    drop_concurrently(op.f("ix_products_category_id_id"), "products")
