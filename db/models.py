"""The tables. `stock_quantity` can never be negative: PostgreSQL itself refuses it.

Every table lives in the schema that comes first in the search path: one shop, one schema. Nothing is loaded
implicitly: access to a relationship that no query has loaded raises.
"""

from datetime import datetime
from decimal import Decimal
from typing import Final, Literal
from uuid import UUID, uuid4

from sqlalchemy import (
    CheckConstraint,
    Enum,
    ForeignKey,
    Identity,
    Index,
    Integer,
    Numeric,
    String,
    UniqueConstraint,
    func,
)
from sqlalchemy.orm import Mapped, mapped_column, relationship

from db.base import Base as Base
from db.base import JsonText
from db.letter_models import DeadLetterRedrive as DeadLetterRedrive
from db.letter_models import SettledLetter as SettledLetter
from db.order_reopening import OrderReopening as OrderReopening
from db.statuses import OrderStatus as OrderStatus
from db.statuses import Outcome as Outcome
from db.statuses import RedriveStatus as RedriveStatus

# An access in async code cannot run a query; without this it fails with a word about greenlets.
_NO_QUERY: Final[Literal["raise_on_sql"]] = "raise_on_sql"


class User(Base):
    __tablename__ = "users"

    id: Mapped[int] = mapped_column(Identity(always=False), primary_key=True)
    email: Mapped[str] = mapped_column(unique=True)
    full_name: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    orders: Mapped[list["Order"]] = relationship(back_populates="user", passive_deletes="all", lazy=_NO_QUERY)


# Two e-mails that differ in upper and lower case only are the same.
Index("ix_users_email_lower", func.lower(User.email), unique=True)


class Category(Base):
    __tablename__ = "categories"
    _SHOWN = ("name",)

    id: Mapped[int] = mapped_column(Identity(always=False), primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    description: Mapped[str] = mapped_column(server_default="")
    # Of those from before revision 0009: the time of that upgrade.
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    products: Mapped[list["Product"]] = relationship(
        back_populates="category", passive_deletes="all", order_by="Product.id", lazy=_NO_QUERY
    )


class Product(Base):
    __tablename__ = "products"
    _SHOWN = ("name",)
    __table_args__ = (
        CheckConstraint("price >= 0", name="price_not_negative"),
        CheckConstraint("stock_quantity >= 0", name="stock_not_negative"),
        # With the id, or the first of a category would be looked for among the products of all others.
        Index(None, "category_id", "id"),
        # With the id, since many share a time: those of one import, and all from before revision 0009.
        Index(None, "created_at", "id"),
        # Room on each page, so that a stock update stays on it and touches no index (HOT).
        {"postgresql_with": {"fillfactor": 70}},
    )

    id: Mapped[int] = mapped_column(Identity(always=False), primary_key=True)
    name: Mapped[str] = mapped_column(index=True)
    description: Mapped[str] = mapped_column(server_default="")
    price: Mapped[Decimal] = mapped_column(index=True)
    # No index on stock: every sale would have to write it.
    stock_quantity: Mapped[int] = mapped_column(server_default="0")
    # All that was ever put into stock: received − sold in orders not cancelled = stock_quantity.
    received_quantity: Mapped[int] = mapped_column(server_default="0")
    category_id: Mapped[int] = mapped_column(ForeignKey("categories.id", ondelete="RESTRICT"))
    # Of those from before revision 0009: the time of that upgrade.
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    category: Mapped[Category] = relationship(back_populates="products", lazy=_NO_QUERY)
    order_items: Mapped[list["OrderItem"]] = relationship(
        back_populates="product", passive_deletes="all", lazy=_NO_QUERY
    )


class Order(Base):
    __tablename__ = "orders"
    _SHOWN = ("status",)
    __table_args__ = (
        CheckConstraint("status IN ('pending', 'completed', 'cancelled')", name="status"),
        # With the time, so that the newest of a customer with many orders are found without the others.
        Index(None, "user_id", "created_at"),
    )

    # Where none is given, from the first flush on.
    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="RESTRICT"))
    status: Mapped[OrderStatus] = mapped_column(
        Enum(OrderStatus, native_enum=False, length=16, values_callable=lambda kind: [s.value for s in kind]),
        server_default=OrderStatus.PENDING.value,
    )
    total_amount: Mapped[Decimal] = mapped_column(Numeric(14, 2))
    placed_at: Mapped[datetime]
    # A worker's orders of one batch share this time, so that the index stays small and grows at one end.
    created_at: Mapped[datetime] = mapped_column(server_default=func.now(), index=True)

    user: Mapped[User] = relationship(back_populates="orders", lazy=_NO_QUERY)
    items: Mapped[list["OrderItem"]] = relationship(
        back_populates="order",
        cascade="all, delete-orphan",
        passive_deletes=True,
        order_by="OrderItem.line_number",
        lazy=_NO_QUERY,
    )


class OrderItem(Base):
    """One line, keyed by its place in the order: one index and one sequence fewer than an own number."""

    __tablename__ = "order_items"
    _SHOWN = ("product_id", "quantity")
    __table_args__ = (CheckConstraint("quantity > 0", name="quantity_positive"),)

    order_id: Mapped[UUID] = mapped_column(ForeignKey("orders.id", ondelete="CASCADE"), primary_key=True)
    line_number: Mapped[int] = mapped_column(Integer, primary_key=True)  # from 1
    product_id: Mapped[int] = mapped_column(ForeignKey("products.id", ondelete="RESTRICT"), index=True)
    quantity: Mapped[int] = mapped_column(Integer)
    unit_price: Mapped[Decimal]

    order: Mapped[Order] = relationship(back_populates="items", lazy=_NO_QUERY)
    product: Mapped[Product] = relationship(back_populates="order_items", lazy=_NO_QUERY)


class OrderOutcome(Base):
    """The ledger: one row for each order id ever decided.

    No foreign keys, because a rejected order may name no row. Never delete from it: without its row an
    order is decided a second time. `ledger prune` drops the event of an old row, and keeps the row.
    """

    __tablename__ = "order_outcomes"
    _SHOWN = ("outcome",)
    __table_args__ = (CheckConstraint("outcome IN ('confirmed', 'rejected')", name="outcome"),)

    order_id: Mapped[UUID] = mapped_column(primary_key=True)
    outcome: Mapped[str] = mapped_column(String(16))
    fingerprint: Mapped[bytes]
    source_topic: Mapped[str]
    source_partition: Mapped[int] = mapped_column(Integer)
    source_offset: Mapped[int]
    event: Mapped[str | None] = mapped_column(JsonText())  # NULL: it was pruned
    decided_at: Mapped[datetime]
    # With its lines sorted, for orders whose event does not have them: rejected, or pruned.
    sorted_fingerprint: Mapped[bytes | None]
    # Headers that each publication carries on, as JSON: pairs of name and text. None where there are none.
    passed_on: Mapped[str | None]


class Replay(Base):
    """An operator's replay.

    Below `to_offset`, an order that was decided before `requested_at` is not published again. That time is
    after all that was decided there before (`db.worker.ledger.add_replays`), whatever the clock says.
    """

    __tablename__ = "replays"
    __table_args__ = (CheckConstraint("from_offset <= to_offset", name="offsets"),)

    id: Mapped[int] = mapped_column(Identity(always=False), primary_key=True)
    topic: Mapped[str]
    partition: Mapped[int] = mapped_column(Integer)
    from_offset: Mapped[int]
    to_offset: Mapped[int]
    requested_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Position(Base):
    """How far a consumer group has published a partition, and what it began to publish last.

    The columns have older names than `db.worker.positions.PendingBatch`: `announced_to` is its
    `published_to`, `begun_to` its `pending_to`, and `witness_…` its sentinel.
    """

    __tablename__ = "positions"

    group_id: Mapped[str] = mapped_column(primary_key=True)
    topic: Mapped[str] = mapped_column(primary_key=True)
    partition: Mapped[int] = mapped_column(Integer, primary_key=True)
    epoch: Mapped[int]
    # Of the owner's producer, which may have a transaction open; none: the lease was released.
    transactional_id: Mapped[str | None]
    announced_to: Mapped[int | None]
    begun_to: Mapped[int | None]
    last_timestamp_ms: Mapped[int | None]
    witness_topic: Mapped[str | None]
    witness_timestamp_ms: Mapped[int | None]
    witness_digest: Mapped[bytes | None]
    witness_partition: Mapped[int | None] = mapped_column(Integer)
    witness_from_offset: Mapped[int | None]
    begun_by: Mapped[str | None]  # the transactional id with which it is published
    # The batch before, from here to `announced_to`.
    acknowledged_from: Mapped[int | None]
    acknowledged_topic: Mapped[str | None]
    acknowledged_timestamp_ms: Mapped[int | None]
    acknowledged_digest: Mapped[bytes | None]
    acknowledged_partition: Mapped[int | None] = mapped_column(Integer)
    acknowledged_from_offset: Mapped[int | None]
    acknowledged_by: Mapped[str | None]


class Skip(Base):
    """A span of the input that no worker decides: an operator skipped it, or retention deleted it before."""

    __tablename__ = "skips"
    __table_args__ = (
        CheckConstraint("kind IN ('skipped', 'deleted')", name="kind"),
        CheckConstraint("from_offset < to_offset", name="offsets"),
        UniqueConstraint("topic", "partition", "from_offset", "kind"),
    )

    id: Mapped[int] = mapped_column(Identity(always=False), primary_key=True)
    topic: Mapped[str]
    partition: Mapped[int] = mapped_column(Integer)
    kind: Mapped[str] = mapped_column(String(16))
    from_offset: Mapped[int]
    to_offset: Mapped[int]  # not included
    requested_by: Mapped[str]  # a person; where records were deleted, the group that found it
    note: Mapped[str]
    requested_at: Mapped[datetime] = mapped_column(server_default=func.now())


class WithheldOutcome(Base):
    """A decided outcome that its topic refuses: its partition has continued without it.

    The owner of the partition publishes it when the topic accepts it. The row stays for a while after that,
    so that the outcome is not published again if Kafka loses the offset of its batch.
    """

    __tablename__ = "withheld_outcomes"

    order_id: Mapped[UUID] = mapped_column(primary_key=True)
    topic: Mapped[str]
    source_topic: Mapped[str]
    source_partition: Mapped[int] = mapped_column(Integer)
    source_offset: Mapped[int]
    headers: Mapped[str]  # as JSON; the event is in the ledger
    size_bytes: Mapped[int]
    reason: Mapped[str]
    what_to_do: Mapped[str]
    withheld_at: Mapped[datetime] = mapped_column(server_default=func.now())
    # Where it lies if it was published, as of the last try.
    tried_partition: Mapped[int | None] = mapped_column(Integer)
    tried_from_offset: Mapped[int | None]
    published_at: Mapped[datetime | None]
