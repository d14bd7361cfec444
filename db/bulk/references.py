"""Writes orders and items without checking their foreign keys row by row, where the caller has checked them.

A foreign key is a query for each row: for an order of three lines those seven queries take 23 of PostgreSQL's
37 µs. A caller that writes orders with their items, and takes their stock in the same transaction, has done
the same:

- the user was locked as a foreign key locks (`lock_user_ids`): nobody deletes it until the commit;
- the order was inserted by this very transaction, so it is there, and nobody else can delete it yet;
- the product is there and stays until the commit, because the update that takes its stock found its row and
  holds it (`stock.take_stock` is False where it did not, and the caller rolls back).

The foreign keys remain, for all other writes and for every delete. Only the checks of two COPYs are left out,
by the setting that logical replication uses for the same reason.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

# The setting also skips triggers. So it is used only where an insert, also into a partition, fires nothing
# but the checks of these three keys. 4 is TRIGGER_TYPE_INSERT of PostgreSQL's catalog/pg_trigger.h.
_PASS_OVER: Final = text("""
    SELECT set_config('session_replication_role', 'replica', true)
    WHERE has_parameter_privilege('session_replication_role', 'SET')
      AND NOT EXISTS (
        SELECT FROM pg_trigger
        LEFT JOIN pg_constraint ON pg_constraint.oid = tgconstraint AND contype = 'f'
        WHERE tgtype & 4 <> 0
          AND tgrelid = ANY (ARRAY['orders', 'order_items']::regclass[] || ARRAY(
            SELECT relid FROM pg_partition_tree('orders')
            UNION ALL SELECT relid FROM pg_partition_tree('order_items')))
          AND (confrelid,
               (SELECT attname FROM pg_attribute WHERE attrelid = conrelid AND attnum = ALL (conkey)))
            IN (('users'::regclass, 'user_id'), ('orders'::regclass, 'order_id'),
                ('products'::regclass, 'product_id')) IS NOT TRUE)
    """)
_LOOK_AGAIN: Final = text("SET LOCAL session_replication_role TO DEFAULT")
_PARAMETER_PRIVILEGES_SINCE: Final = (15,)


@asynccontextmanager
async def known_to_hold(session: AsyncSession) -> AsyncIterator[None]:
    """Within the block, orders and items are written without foreign key checks, if that is allowed.

    It is allowed to a superuser, and to a role with `GRANT SET ON PARAMETER session_replication_role`
    (PostgreSQL 15 and newer), unless the tables or their partitions have an insert trigger or another foreign
    key. Otherwise PostgreSQL checks each row as usual. After an error in the block, the transaction can only
    be rolled back.
    """
    version = (await session.connection()).dialect.server_version_info or ()
    allowed = version >= _PARAMETER_PRIVILEGES_SINCE and (await session.execute(_PASS_OVER)).first()
    yield
    if allowed:
        await session.execute(_LOOK_AGAIN)
