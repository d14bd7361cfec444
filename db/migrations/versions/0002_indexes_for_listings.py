"""indexes for listings"""

from collections.abc import Sequence

from alembic import op

from db.migrations.indexes import create_concurrently, drop_concurrently

revision: str = "0002"
down_revision: str | None = "0001"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


# `orders` may be large: nobody waits while its indexes are built.
is_concurrent = True


def upgrade() -> None:
    create_concurrently(op.f("ix_orders_created_at"), "orders", ["created_at"])
    create_concurrently(op.f("ix_orders_user_id_created_at"), "orders", ["user_id", "created_at"])
    drop_concurrently(op.f("ix_orders_user_id"), "orders")
    create_concurrently(op.f("ix_products_name"), "products", ["name"])
    create_concurrently(op.f("ix_products_price"), "products", ["price"])


def downgrade() -> None:
    drop_concurrently(op.f("ix_products_price"), "products")
    drop_concurrently(op.f("ix_products_name"), "products")
    create_concurrently(op.f("ix_orders_user_id"), "orders", ["user_id"])
    drop_concurrently(op.f("ix_orders_user_id_created_at"), "orders")
    drop_concurrently(op.f("ix_orders_created_at"), "orders")
