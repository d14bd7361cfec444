"""One more of the tables, which `db.models` has."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import Index, Integer, func, text
from sqlalchemy.orm import Mapped, mapped_column

from db.base import Base


class OrderReopening(Base):
    """A rejected order that was placed again under a new id, which happens once to an order."""

    __tablename__ = "order_reopenings"
    __table_args__ = (
        # What a run still has to send, in the order it does it; small, however many were ever reopened.
        Index(
            "ix_order_reopenings_unsent",
            "run_id",
            "source_partition",
            "source_offset",
            postgresql_where=text("input_offset IS NULL"),
        ),
    )

    order_id: Mapped[UUID] = mapped_column(primary_key=True)
    new_order_id: Mapped[UUID] = mapped_column(unique=True)
    run_id: Mapped[UUID]
    requested_by: Mapped[str]
    requested_at: Mapped[datetime] = mapped_column(server_default=func.now())
    drop_prices: Mapped[bool]
    topic: Mapped[str]  # of the input
    source_partition: Mapped[int] = mapped_column(Integer)
    source_offset: Mapped[int]
    # Its input partition, and the end of that before anything was sent: if it was sent, it lies after that.
    input_partition: Mapped[int] = mapped_column(Integer)
    input_from: Mapped[int]
    input_offset: Mapped[int | None]
