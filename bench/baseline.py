"""The baseline, as a FastStream and SQLAlchemy tutorial has it: one message, one transaction, one publish.

Run by the benchmark as `faststream run bench.baseline:app`. It shares the tables with the worker, and nothing
else. Three things are better than in a tutorial, all in its favour: stock is locked (else it would oversell),
it publishes with acks=all (as the worker does), and it logs nothing for each message.

It promises little: FastStream's default commits offsets on a timer, so a crash loses orders, and
a crash between commit and publish leaves an order that nobody hears of.
"""

import os
from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID

from faststream import FastStream
from faststream.kafka import KafkaBroker
from pydantic import BaseModel
from sqlalchemy import select
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

from db.database_url import read_url
from db.models import Order, OrderItem, Product, User
from db.statuses import OrderStatus

_PREFIX = "ORDER_WORKER_"
CONFIRMED = os.environ[f"{_PREFIX}ORDER_CONFIRMED_TOPIC"]
REJECTED = os.environ[f"{_PREFIX}ORDER_REJECTED_TOPIC"]

# A better tutorial handles several messages at a time, each with its own connection.
CONCURRENCY = int(os.environ.get("BENCH_BASELINE_CONCURRENCY", "1"))

# Built at import, as tutorials do.
engine = create_async_engine(
    read_url(os.environ[f"{_PREFIX}DATABASE_URL"]).dsn.replace("postgresql://", "postgresql+asyncpg://", 1),
    pool_size=CONCURRENCY,
)
sessions = async_sessionmaker(engine, expire_on_commit=False)
broker = KafkaBroker(os.environ[f"{_PREFIX}KAFKA_BOOTSTRAP_SERVERS"], acks="all", logger=None)
app = FastStream(broker, logger=None)


class Item(BaseModel):
    product_id: int
    quantity: int
    unit_price: Decimal | None = None


class PlacedOrder(BaseModel):
    order_id: UUID
    user_id: int
    placed_at: datetime
    items: list[Item]


class Confirmation(BaseModel):
    order_id: UUID
    user_id: int
    total_amount: Decimal
    items: list[Item]
    placed_at: datetime
    decided_at: datetime


class Refusal(BaseModel):
    order_id: UUID
    user_id: int
    reason: str
    placed_at: datetime
    decided_at: datetime


@broker.subscriber(
    os.environ[f"{_PREFIX}ORDER_PLACED_TOPIC"],
    group_id=os.environ[f"{_PREFIX}GROUP_ID"],
    auto_offset_reset="earliest",
    max_workers=CONCURRENCY,
)
async def handle_order_placed(order: PlacedOrder) -> None:
    outcome = await decide(order)
    topic = CONFIRMED if isinstance(outcome, Confirmation) else REJECTED
    await broker.publish(outcome, topic=topic, key=str(order.order_id).encode())


async def decide(order: PlacedOrder) -> Confirmation | Refusal:
    async with sessions.begin() as session:
        user = await session.get(User, order.user_id)
        ids = [item.product_id for item in order.items]
        found = await session.scalars(
            select(Product).where(Product.id.in_(ids)).order_by(Product.id).with_for_update(key_share=True)
        )
        products = {product.id: product for product in found}
        if reason := refusal_reason(order, user, products):
            return Refusal(
                order_id=order.order_id,
                user_id=order.user_id,
                reason=reason,
                placed_at=order.placed_at,
                decided_at=datetime.now(UTC),
            )
        total = Decimal(0)
        stored = Order(
            id=order.order_id,
            user_id=order.user_id,
            status=OrderStatus.PENDING.value,
            total_amount=total,
            placed_at=order.placed_at,
        )
        session.add(stored)
        for number, item in enumerate(order.items, 1):
            product = products[item.product_id]
            product.stock_quantity -= item.quantity
            item.unit_price = product.price
            total += item.quantity * product.price
            session.add(
                OrderItem(
                    order_id=order.order_id,
                    line_number=number,
                    product_id=item.product_id,
                    quantity=item.quantity,
                    unit_price=product.price,
                )
            )
        stored.total_amount = total
    return Confirmation(
        order_id=order.order_id,
        user_id=order.user_id,
        total_amount=total,
        items=order.items,
        placed_at=order.placed_at,
        decided_at=datetime.now(UTC),
    )


def refusal_reason(order: PlacedOrder, user: User | None, products: dict[int, Product]) -> str | None:
    if user is None:
        return "unknown_user"
    for item in order.items:
        product = products.get(item.product_id)
        if product is None:
            return "unknown_product"
        if product.stock_quantity < item.quantity:
            return "insufficient_stock"
    return None
