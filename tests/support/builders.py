"""Builders with defaults: a test names only what it is about."""

import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

from aiokafka import ConsumerRecord

from contracts.events import OrderPlaced
from contracts.plain_order import PlainOrder

PLACED_AT = "2026-11-23T10:00:00+00:00"


def line(product_id: int = 1, quantity: int = 1, unit_price: str | None = None) -> dict[str, Any]:
    """One item of an order-placed value."""
    item: dict[str, Any] = {"product_id": product_id, "quantity": quantity}
    return item if unit_price is None else {**item, "unit_price": unit_price}


def order_value(
    *items: dict[str, Any], order_id: UUID | None = None, user_id: int = 1, **fields: Any
) -> bytes:
    """An order-placed value as JSON bytes."""
    order = {
        "order_id": str(order_id or uuid4()),
        "user_id": user_id,
        "placed_at": PLACED_AT,
        "items": list(items) or [line()],
        **fields,
    }
    return json.dumps(order).encode()


def order(*items: dict[str, Any], **fields: Any) -> PlainOrder:
    """A decoded order."""
    return OrderPlaced.model_validate_json(order_value(*items, **fields)).plain()


def record(
    value: bytes | None,
    *,
    offset: int = 0,
    partition: int = 0,
    topic: str = "order-placed",
    key: bytes | None = None,
    headers: tuple[tuple[str, bytes | None], ...] = (),
) -> ConsumerRecord[Any, Any]:
    """A record as the consumer hands it over."""
    return ConsumerRecord(
        topic=topic,
        partition=partition,
        offset=offset,
        timestamp=int(datetime(2026, 11, 23, 10, tzinfo=UTC).timestamp() * 1000),
        timestamp_type=0,
        key=key,
        value=value,
        checksum=None,
        serialized_key_size=len(key or b""),
        serialized_value_size=len(value or b""),
        headers=headers,
    )
