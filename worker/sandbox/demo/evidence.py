"""What the demo leaves behind, read back from PostgreSQL once everything is decided."""

from dataclasses import dataclass
from decimal import Decimal
from typing import Final
from uuid import UUID

from sqlalchemy import Numeric, Text, and_, cast, func, select

from db.engine import session_factory
from db.models import Order, OrderItem, OrderOutcome, Product
from db.statuses import OrderStatus
from worker.database import database_engine
from worker.settings import Settings


@dataclass(frozen=True, slots=True)
class StoredDecision:
    """One row of the ledger."""

    order_id: UUID
    outcome: str
    fingerprint: bytes
    partition: int
    offset: int
    event: bytes


@dataclass(frozen=True, slots=True)
class ProductStock:
    """One product: what was ever put into stock, what was sold, what is left."""

    product_id: int
    received: int
    sold: int
    stock: int


@dataclass(frozen=True, slots=True)
class OrderEvidence:
    """An order as stored, and what its lines add up to."""

    order_id: UUID
    total_amount: Decimal
    sum_of_lines: Decimal


@dataclass(frozen=True, slots=True)
class DemoEvidence:
    """Ledger, stock and orders, as one moment saw them."""

    ledger: list[StoredDecision]
    stocks: list[ProductStock]
    orders: list[OrderEvidence]


_LEDGER: Final = select(
    OrderOutcome.order_id,
    OrderOutcome.outcome,
    OrderOutcome.fingerprint,
    OrderOutcome.source_partition,
    OrderOutcome.source_offset,
    cast(OrderOutcome.event, Text),
)
_STOCKS: Final = (
    select(
        Product.id,
        Product.received_quantity,
        func.coalesce(func.sum(OrderItem.quantity).filter(Order.id.is_not(None)), 0),
        Product.stock_quantity,
    )
    .outerjoin(OrderItem, OrderItem.product_id == Product.id)
    .outerjoin(Order, and_(Order.id == OrderItem.order_id, Order.status != OrderStatus.CANCELLED.value))
    .group_by(Product.id)
)
_ORDERS: Final = (
    select(
        Order.id,
        Order.total_amount,
        func.coalesce(func.sum(cast(OrderItem.quantity, Numeric) * OrderItem.unit_price), Decimal(0)),
    )
    .outerjoin(OrderItem, OrderItem.order_id == Order.id)
    .group_by(Order.id)
)


async def read_evidence(settings: Settings) -> DemoEvidence:
    """Everything in one snapshot of the database."""
    async with database_engine(settings, "order-worker demo") as engine, session_factory(engine)() as session:
        await session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
        ledger = [StoredDecision(*row[:5], row[5].encode()) for row in await session.execute(_LEDGER)]
        stocks = [ProductStock(*row) for row in await session.execute(_STOCKS)]
        orders = [OrderEvidence(*row) for row in await session.execute(_ORDERS)]
    return DemoEvidence(ledger, stocks, orders)
