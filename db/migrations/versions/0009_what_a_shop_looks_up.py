"""when a category or product was created, and one user for an e-mail however it is written

Rows that are there get the time of this upgrade. PostgreSQL keeps it beside the table, so that no row is
written. Users whose e-mails differ in upper and lower case only have to be one before: the upgrade is
refused, and nothing is changed, where there are any.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

from db.upgrade_refused import UpgradeRefusedError

revision: str = "0009"
down_revision: str | None = "0008"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    # Nobody adds a user between the look and the index, which locks as much. Workers only read users.
    op.execute("LOCK TABLE users IN SHARE MODE")
    _require_different_emails()
    op.create_index("ix_users_email_lower", "users", [sa.text("lower(email)")], unique=True)
    # Last, for these locks stand in everybody's way: two entries of the catalogue, and one index.
    for table in ("categories", "products"):
        op.add_column(
            table,
            sa.Column(
                "created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
            ),
        )
    op.create_index(op.f("ix_products_created_at_id"), "products", ["created_at", "id"], unique=False)


def downgrade() -> None:
    op.drop_index(op.f("ix_products_created_at_id"), table_name="products")
    op.drop_column("products", "created_at")
    op.drop_column("categories", "created_at")
    op.drop_index("ix_users_email_lower", table_name="users")


def _require_different_emails() -> None:
    clashes = "SELECT array_agg(id ORDER BY id) AS ids FROM users GROUP BY lower(email) HAVING count(*) > 1"
    first, groups = (
        op.get_bind()
        .execute(sa.text(f"SELECT min(ids), count(*) FROM ({clashes}) AS clash"))  # noqa: S608 (constant)
        .one()
    )
    if groups:
        users = " and ".join(map(str, first[:2])) + (
            f" and {len(first) - 2:,} more" if len(first) > 2 else ""
        )
        more = f", and so do users of {groups - 1:,} other e-mails" if groups > 1 else ""
        raise UpgradeRefusedError(
            f"users {users} have one e-mail but for upper and lower case{more}: give all but one of them"
            f" another e-mail and run it again; nothing was changed; this lists them: {clashes}"
        )
