"""The orders to place: drawn from the catalogue, or read from a file."""

import random
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import BinaryIO, Final
from uuid import UUID

from contracts.events import OrderedItem, OrderPlaced
from worker.core.decode import Invalid
from worker.errors import CommandError
from worker.operations.place.order_file import decoded, order_lines

_TWINS_APART: Final = 500  # at most so many orders between an order and its duplicate
_SEEDED_TIME: Final = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Message:
    """One record to publish: the key, and the value byte for byte."""

    key: bytes
    value: bytes


def random_orders(
    seed: int | None,
    users: Sequence[int],
    products: Sequence[tuple[int, Decimal]],
    count: int,
    *,
    max_items: int = 5,
    first_placed_at: datetime | None = None,
    with_prices: bool = True,
) -> Iterator[OrderPlaced]:
    """Yield orders of 1 to `max_items` different products, 1 to 5 of each, a millisecond apart.

    The same arguments give the same orders, ids included; without a seed each call gives others.
    A seed without `first_placed_at` starts at a fixed time, because another time would be another
    order under the same id.
    """
    if not users or not products:
        raise ValueError("random orders need at least one user and one product")
    rng = random.Random(seed)
    start = first_placed_at or (datetime.now(UTC) if seed is None else _SEEDED_TIME)
    most = min(max_items, len(products))
    for number in range(count):
        chosen = rng.sample(products, rng.randint(1, most))
        yield OrderPlaced(
            order_id=UUID(int=rng.getrandbits(128), version=4),
            user_id=rng.choice(users),
            placed_at=start + timedelta(milliseconds=number),
            items=tuple(
                OrderedItem(
                    product_id=product_id,
                    quantity=rng.randint(1, 5),
                    unit_price=price if with_prices else None,
                )
                for product_id, price in chosen
            ),
        )


def encode(order: OrderPlaced) -> Message:
    """The order as an upstream service would publish it."""
    return Message(str(order.order_id).encode(), order.model_dump_json(exclude_none=True).encode())


def read_messages(file: BinaryIO, name: str, max_bytes: int) -> Iterator[Message]:
    """Yield the lines that are not blank, or raise a CommandError that names the first bad one."""
    for line in order_lines(file, max_bytes):
        order = decoded(line, max_bytes)
        if isinstance(order, Invalid):
            where = f"{name}:{line.number}" + (f": {order.path}" if order.path else "")
            raise CommandError(f"{where}: {order.message} ({order.code}); nothing was sent")
        yield Message(str(order.order.order_id).encode(), line.value)


def with_twins(messages: Iterable[Message], share: float, seed: int | None) -> Iterator[tuple[Message, bool]]:
    """Yield each message, and a share of them a second time (True) soon after, as if upstream repeated it."""
    rng = random.Random(seed)
    waiting: deque[Message] = deque()
    for message in messages:
        yield message, False
        if rng.random() < share:
            waiting.append(message)
        if waiting and (len(waiting) >= _TWINS_APART or rng.random() < share):
            yield waiting.popleft(), True
    for message in waiting:
        yield message, True
