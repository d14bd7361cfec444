"""one user for an e-mail however it is written, and the newest products first

Users whose e-mails differ in upper and lower case only have to be one before: the upgrade is refused where
there are any.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.exc import IntegrityError

from db.migrations.indexes import create_concurrently, drop_concurrently
from db.upgrade_refused import UpgradeRefusedError

revision: str = "0010"
down_revision: str | None = "0009"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None

is_concurrent = True

_CLASHES = "SELECT array_agg(id ORDER BY id) AS ids FROM users GROUP BY lower(email) HAVING count(*) > 1"


def upgrade() -> None:
    if not op.get_context().as_sql:
        _require_different_emails()
    try:
        create_concurrently("ix_users_email_lower", "users", [sa.text("lower(email)")], unique=True)
    except IntegrityError:
        _require_different_emails()  # somebody has added one meanwhile
        raise
    create_concurrently(op.f("ix_products_created_at_id"), "products", ["created_at", "id"])


def downgrade() -> None:
    drop_concurrently(op.f("ix_products_created_at_id"), "products")
    drop_concurrently("ix_users_email_lower", "users")


def _require_different_emails() -> None:
    first, groups = (
        op.get_bind()
        .execute(sa.text(f"SELECT min(ids), count(*) FROM ({_CLASHES}) AS clash"))  # noqa: S608 (constant)
        .one()
    )
    if groups:
        users = " and ".join(map(str, first[:2])) + (
            f" and {len(first) - 2:,} more" if len(first) > 2 else ""
        )
        more = f", and so do users of {groups - 1:,} other e-mails" if groups > 1 else ""
        raise UpgradeRefusedError(
            f"users {users} have one e-mail but for upper and lower case{more}: give all but one of them"
            f" another e-mail and run it again; this lists them: {_CLASHES}"
        )
