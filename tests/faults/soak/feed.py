"""An endless stream of orders, and a feeder that publishes each of them, whatever happens to the broker.

Every order is made from the seed and its index alone, so that none has to be kept. Nothing here knows the
worker.
"""

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from random import Random
from typing import Any, Final
from uuid import UUID

from confluent_kafka import Producer

from contracts.events import DeadLetterCode
from contracts.examples import hostile_values
from tests.faults.workload import HOT, HOT_PRODUCT, Kind, Record
from tests.support.builders import line, order_value

USERS: Final = 50
DUPLICATES: Final = 0.01
POISON: Final = 0.005
CONFLICTS: Final = 0.005
# There are enough seasons for all orders. Each has its own product, which most of its orders name, and
# which is sold out half way. So there are both outcomes all the time, and no stock is ever refilled.
PRODUCTS: Final = range(1, 26)
SEASON: Final = 20_000  # orders
SEASONAL: Final = 0.65  # of them name the season's product
SEASONAL_PRODUCTS: Final = range(1_001, 2_001)
STOCK: Final = {
    **dict.fromkeys(PRODUCTS, 10**12),
    **dict.fromkeys(SEASONAL_PRODUCTS, int(SEASON * SEASONAL)),  # two are wanted on average
}
MOST_ORDERS: Final = SEASON * len(SEASONAL_PRODUCTS)

_POISON: Final = [(h.value, h.code.value) for h in hostile_values() if len(h.value or b"") < 1_000]


class Stream:
    """The n-th order and what follows it, the same bytes whenever they are asked for."""

    def __init__(self, seed: int, partitions: int) -> None:
        self.partitions = partitions
        self._seed = seed

    def order(self, n: int) -> Record:
        """The n-th sound order."""
        return self._drawn(n)[0]

    def find(self, order_id: UUID) -> Record | None:
        """The sound order of that id; None where this stream has none."""
        order = self.order(index(order_id))
        return order if order.order_id == order_id else None

    def records(self, n: int) -> Iterator[Record]:
        """The n-th order, and now and then a duplicate, poison or a conflict behind it."""
        record, chance = self._drawn(n)
        yield record
        what = chance.random()
        if what < DUPLICATES:
            original = self.order(_earlier(chance, n))
            partition = chance.choice([original.partition, chance.randrange(self.partitions)])
            yield replace(original, kind=Kind.DUPLICATE, partition=partition)
        elif what < DUPLICATES + CONFLICTS:
            yield _conflict(self.order(_earlier(chance, n)))
        elif what < DUPLICATES + CONFLICTS + POISON:
            value, code = chance.choice(_POISON)
            yield Record(Kind.POISON, chance.randrange(self.partitions), b"poison", value, (), None, code)

    def _drawn(self, n: int) -> tuple[Record, Random]:
        chance = Random(self._seed << 64 | n)
        # The upper half at random: ids come to the index of the ledger in no order, as real ones do.
        order_id = UUID(int=chance.getrandbits(64) << 64 | n)
        roll = chance.random
        items = [line(2 + int(24 * roll()), 1 + int(5 * roll())) for _ in range(1 + int(2 * roll()))]
        if roll() < HOT:
            items.append(line(HOT_PRODUCT, 1 + int(5 * roll())))
        if roll() < SEASONAL:
            items.append(line(SEASONAL_PRODUCTS[n // SEASON % len(SEASONAL_PRODUCTS)], 1 + int(3 * roll())))
        value = order_value(*items, order_id=order_id, user_id=1 + int(USERS * roll()))
        partition = int(self.partitions * roll())
        return Record(Kind.ORDER, partition, str(order_id).encode(), value, (), order_id, None), chance


def index(order_id: UUID) -> int:
    """The n of the order that has this id, if any order has."""
    return order_id.int & (2**64 - 1)


class Feeder:
    """Publishes a stream to its partitions, each record once and in order: its offset is its place there.

    `placed` orders were handed over so far; `end` returns when all of them are acknowledged.
    """

    def __init__(self, stream: Stream, bootstrap_servers: str, topic: str) -> None:
        self.placed = 0
        self.failures: list[str] = []
        self._stream, self._topic = stream, topic
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        # Idempotent, with long timeouts: a broker that is killed or frozen costs time and no record.
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap_servers,
                "enable.idempotence": True,
                "delivery.timeout.ms": 600_000,
                "delivery.report.only.error": True,
                "reconnect.backoff.max.ms": 1_000,
                "linger.ms": 20,
                "log_level": 0,
                "error_cb": lambda error: self._delivered(error if error.fatal() else None, None),
            }
        )

    def place(self, orders: int) -> None:
        """Publish this many orders at once."""
        self._place_until(self.placed + orders)
        self._producer.poll(0)

    def start(self, rate: float) -> None:
        """From now on `rate` orders a second, whatever becomes of them; delays are caught up on."""
        self._thread = threading.Thread(target=self._feed, args=(rate,), daemon=True)
        self._thread.start()

    def end(self) -> None:
        """No more orders. Raises when a single one did not get through."""
        self._ended.set()
        if self._thread:
            self._thread.join()
        left = self._producer.flush(120)
        assert not left, f"{left} records were not acknowledged"
        assert not self.failures, f"the feeder failed: {self.failures[:3]}"

    def _feed(self, rate: float) -> None:
        began, first = time.monotonic(), self.placed
        try:
            while not self._ended.wait(0.02):
                self._place_until(first + int((time.monotonic() - began) * rate))
                self._producer.poll(0)
        except Exception as error:
            self.failures.append(f"{type(error).__name__}: {error}")

    def _place_until(self, count: int) -> None:
        while self.placed < count and not self._ended.is_set():
            for record in self._stream.records(self.placed):
                self._publish(record)
            self.placed += 1

    def _publish(self, record: Record) -> None:
        while True:
            try:
                self._producer.produce(
                    self._topic,
                    value=record.value,
                    key=record.key,
                    partition=record.partition,
                    on_delivery=self._delivered,
                )
                return
            except BufferError:
                self._producer.poll(0.05)

    def _delivered(self, error: Any, _message: Any) -> None:
        if error:
            self.failures.append(str(error))


def _earlier(chance: Random, n: int) -> int:
    """An order up to the n-th: half of the time one of the last, mostly in the same batch, else any."""
    return n - int(chance.random() * min(n + 1, 20 if chance.random() < 0.5 else n + 1))


def _conflict(original: Record) -> Record:
    # On the partition of the original: elsewhere it could be decided first, and be the original then.
    order = json.loads(original.value or b"")
    order["user_id"] = order["user_id"] % USERS + 1
    code = DeadLetterCode.ORDER_ID_CONFLICT.value
    return replace(original, kind=Kind.CONFLICT, value=json.dumps(order).encode(), code=code)
