"""indexes for listings"""

from collections.abc import Sequence

from alembic import op

revision: str = "0002"
down_revision: str | None = "0001"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    op.create_index(op.f("ix_orders_created_at"), "orders", ["created_at"], unique=False)
    op.create_index(op.f("ix_orders_user_id_created_at"), "orders", ["user_id", "created_at"], unique=False)
    op.drop_index(op.f("ix_orders_user_id"), table_name="orders")
    op.create_index(op.f("ix_products_name"), "products", ["name"], unique=False)
    op.create_index(op.f("ix_products_price"), "products", ["price"], unique=False)


def downgrade() -> None:
    op.drop_index(op.f("ix_products_price"), table_name="products")
    op.drop_index(op.f("ix_products_name"), table_name="products")
    op.create_index(op.f("ix_orders_user_id"), "orders", ["user_id"], unique=False)
    op.drop_index(op.f("ix_orders_user_id_created_at"), table_name="orders")
    op.drop_index(op.f("ix_orders_created_at"), table_name="orders")
