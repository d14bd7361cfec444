"""An order's id of the caller's own: taken once, by an order, by the ledger or by a worker."""

from uuid import uuid4

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from db.engine import session_factory
from db.errors import AlreadyExistsError
from db.orders import create_order, delete_order, get_order
from tests.support.order_stories import an_order, books, in_the_ledger, line, whole
from tests.support.shop import Shop


@pytest.mark.parametrize("elsewhere", [False, True], ids=["same session", "other session"])
async def test_an_order_id_is_taken_once(session: AsyncSession, engine: AsyncEngine, elsewhere: bool):
    order_id = uuid4()
    first = await create_order(session, 1, [line(1, 2)], order_id=order_id)
    if elsewhere:
        await session.commit()
    async with session_factory(engine)() as other:
        second = other if elsewhere else session
        with pytest.raises(AlreadyExistsError) as caught:
            await create_order(second, 2, [line(2, 2)], order_id=order_id)
        assert (caught.value.what, caught.value.value, caught.value.constraint) == (
            "order",
            order_id,
            "pk_orders",
        )
        assert whole(await get_order(second, order_id)) == whole(first), "the transaction is usable"
        await second.commit()


@pytest.mark.parametrize("outcome", ["confirmed", "rejected"])
async def test_an_id_the_ledger_knows_is_taken_also_where_there_is_no_such_order(
    session: AsyncSession, stocked: Shop, outcome: str
):
    order_id = uuid4()
    in_the_ledger(stocked, order_id, outcome)
    with pytest.raises(AlreadyExistsError) as caught:
        await create_order(session, 1, [line()], order_id=order_id)
    assert (caught.value.value, caught.value.constraint) == (order_id, "pk_order_outcomes")
    await create_order(session, 1, [line(1, 10)])
    await session.commit()


async def test_a_deleted_order_leaves_its_id_free_unless_the_ledger_keeps_it(
    session: AsyncSession, stocked: Shop
):
    order = await an_order(session, line(1, 2))
    await delete_order(session, order.id)
    again = await create_order(session, 1, [line(1, 3)], order_id=order.id)
    await session.commit()
    in_the_ledger(stocked, order.id, "confirmed")
    await delete_order(session, again.id)
    with pytest.raises(AlreadyExistsError):
        await create_order(session, 1, [line(1, 3)], order_id=order.id)
    await session.commit()
    assert books(stocked)[1] == (10, 10)
