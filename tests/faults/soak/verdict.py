"""What is wrong after a soak, in sentences: every promise, with some bytes of memory an order.

The ledger is read once, through a cursor and in the order of its commits, and every order is made again from
its index; the outcome topics are read to their ends by librdkafka with read_committed.
"""

import asyncio
import time
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from typing import Any, Final, TypeVar
from uuid import UUID

import asyncpg
from confluent_kafka import IsolationLevel, KafkaError, TopicPartition

from tests.faults import decisions, model
from tests.faults.arena import Arena
from tests.faults.soak.feed import USERS, Stream, index
from tests.faults.soak.watch import committed_reader
from tests.faults.verdict import ends, left_open
from tests.faults.workload import PRICE
from tests.support.shop import Shop

T = TypeVar("T")

_SHOWN: Final = 3  # of each kind of violation
_ROWS: Final = 5_000

# Each reads every table once. Shop.assert_conserved asks product by product, which would take hours here.
_BOOKS: Final = {
    "products whose received − sold is not their stock": """
        SELECT p.id FROM products p
        LEFT JOIN (SELECT product_id, sum(quantity) AS quantity FROM order_items GROUP BY product_id) sold
          ON sold.product_id = p.id
        WHERE p.received_quantity - coalesce(sold.quantity, 0) <> p.stock_quantity OR p.stock_quantity < 0""",
    "orders on which ledger and orders disagree": """
        SELECT coalesce(l.order_id, o.id) FROM order_outcomes l FULL JOIN orders o ON o.id = l.order_id
        WHERE (l.outcome = 'confirmed') IS DISTINCT FROM (o.id IS NOT NULL)""",
    "orders whose items do not add up to their total": """
        SELECT o.id FROM orders o
        LEFT JOIN (SELECT order_id, sum(quantity * unit_price) AS amount FROM order_items GROUP BY order_id) i
          ON i.order_id = o.id
        WHERE coalesce(i.amount, -1) <> o.total_amount""",
}


class Findings:
    """Violations by kind: how many, and the first of them."""

    def __init__(self) -> None:
        self._count: Counter[str] = Counter()
        self._first: dict[str, list[str]] = {}

    def add(self, what: str, example: object, count: int = 1) -> None:
        self._count[what] += count
        first = self._first.setdefault(what, [])
        if len(first) < _SHOWN:
            first.append(str(example)[:300])

    def sentences(self) -> list[str]:
        return [f"{count} {what}: {'; '.join(self._first[what])}" for what, count in self._count.items()]


class Outcomes:
    """What was decided and what was published, as a 64-bit hash each: sixteen bytes an order."""

    def __init__(self, orders: int, findings: Findings) -> None:
        self._decided, self._published = (array("q", bytes(8 * orders)) for _ in range(2))
        self._findings = findings

    def decide(self, n: int, outcome: str, event: bytes) -> None:
        """The ledger's row of the n-th order."""
        if n < len(self._decided):  # the model names what was decided and never placed
            self._decided[n] = _hash(outcome, event)

    def add_published(self, n: int, outcome: str, event: bytes) -> None:
        """An outcome that subscribers of the n-th order see."""
        if n >= len(self._published):
            self._findings.add("published, though never placed", n)
        elif self._published[n]:
            self._findings.add("published more than once", f"order {n}")
        else:
            self._published[n] = _hash(outcome, event)

    def compare(self) -> None:
        """Find outcomes that are missing, and those published with other bytes than decided."""
        for n, (decided, published) in enumerate(zip(self._decided, self._published, strict=True)):
            if decided == published != 0:
                continue
            if not decided:
                self._findings.add("placed and never decided", f"order {n}")
            if decided and not published:
                self._findings.add("decided and never published", f"order {n}")
            if published and not decided:
                self._findings.add("published, though not decided", f"order {n}")
            if published and decided:
                self._findings.add("published in other bytes than the ledger's", f"order {n}")


def find_violations(
    arena: Arena, stream: Stream, placed: int, seen: Callable[[], int], report: Callable[[str], None]
) -> list[str]:
    """Every broken guarantee. `seen`: how many outcomes the subscriber saw that read during the soak."""
    findings = Findings()
    outcomes = Outcomes(placed, findings)

    def stage(name: str, judge: Callable[[], T]) -> T:
        began = time.monotonic()
        result = judge()
        report(f"judged {name} in {time.monotonic() - began:.1f} s")
        return result

    stage("the books", lambda: _books(arena.shop, findings))
    stage("every decision", lambda: _decisions(arena, stream, placed, outcomes, findings))
    published = stage("what was published", lambda: _read_published(arena, stream, outcomes))
    stage("the one against the other", outcomes.compare)
    stage("dead letters", lambda: _dead_letters(arena, stream, placed, findings))
    if seen() != published:
        findings.add(
            "outcomes more or fewer than the subscriber that read along has seen",
            seen(),
            abs(seen() - published),
        )
    return [*findings.sentences(), *left_open(arena)]


def _books(shop: Shop, findings: Findings) -> None:
    for what, statement in _BOOKS.items():
        for (wrong,) in shop.sql(statement):
            findings.add(what, wrong)


def _decisions(arena: Arena, stream: Stream, placed: int, outcomes: Outcomes, findings: Findings) -> None:
    """Every outcome and reason is what deciding one order at a time gives, in the order of the commits."""

    def decided() -> Iterator[decisions.Decided]:
        for order_id, outcome, event, partition, offset, committed_at, turn in _ledger(arena.shop):
            assert committed_at, "the server forgot, or never kept, a commit's time"
            outcomes.decide(index(order_id), outcome, event.encode())
            one = decisions.parse_decided(outcome, event, partition, offset, turn)
            if one.order_id != order_id:
                findings.add("ledger rows with the event of another order", order_id)
            yield one

    def order_of(order_id: UUID) -> decisions.Placed | None:
        order = stream.find(order_id) if index(order_id) < placed else None
        return decisions.parse_order(order.value or b"") if order else None

    stock = arena.workload.products
    start = decisions.Start(stock, dict.fromkeys(stock, Decimal(PRICE)), frozenset(range(1, USERS + 1)))
    for sentence in model.stream_violations(decided(), order_of, start):
        findings.add("decisions that no run of one order at a time comes to", sentence)


def _ledger(shop: Shop) -> Iterator[Any]:
    """The rows of the ledger in the order of their commits, some at a time."""
    with asyncio.Runner() as runner:
        connection = runner.run(asyncpg.connect(shop.database_url))
        try:
            # A limit for hash and sort: other programs use the machine as well.
            runner.run(connection.execute("SET work_mem = '64MB'"))
            transaction = connection.transaction()
            runner.run(transaction.start())
            cursor = runner.run(_opened(connection))
            while rows := runner.run(cursor.fetch(_ROWS)):
                yield from rows
        finally:
            runner.run(connection.close())


async def _opened(connection: Any) -> Any:
    return await connection.cursor(decisions.DECIDED)


def _read_published(arena: Arena, stream: Stream, outcomes: Outcomes) -> int:
    topics = {arena.scene.topics.order_confirmed: "confirmed", arena.scene.topics.order_rejected: "rejected"}
    count = 0
    for message in _committed(arena.scene.kafka, list(topics), stream.partitions):
        n = index(UUID(message.key().decode()))
        outcomes.add_published(n, topics[message.topic()], message.value() or b"")
        count += 1
    return count


def _dead_letters(arena: Arena, stream: Stream, placed: int, findings: Findings) -> None:
    """The dead letters are the poison and the conflicts that were placed, once each."""
    counts = [0] * stream.partitions
    expected: dict[tuple[int, int], str] = {}
    for n in range(placed):
        for record in stream.records(n):
            if record.code is not None:
                expected[record.partition, counts[record.partition]] = record.code
            counts[record.partition] += 1
    there = ends(arena.scene, arena.scene.topics.order_placed, IsolationLevel.READ_UNCOMMITTED)
    assert there == dict(enumerate(counts)), f"the feeder placed {counts}, and {there} is there"
    for message in _committed(arena.scene.kafka, [arena.scene.topics.dead_letter], stream.partitions):
        headers = {name: value.decode() for name, value in message.headers() or [] if value is not None}
        source = int(headers["source.partition"]), int(headers["source.offset"])
        if expected.pop(source, None) != headers["error.code"]:
            findings.add("dead letters that should not be, or not again", (*source, headers["error.code"]))
    for source, code in expected.items():
        findings.add("missing dead letters", (*source, code))


def _committed(bootstrap_servers: str, topics: Sequence[str], partitions: int) -> Iterator[Any]:
    """All committed messages that are in the topics now, partition by partition in order."""
    consumer = committed_reader(bootstrap_servers)
    waiting = {(topic, p) for topic in topics for p in range(partitions)}
    try:
        consumer.assign([TopicPartition(topic, p, 0) for topic, p in waiting])
        while waiting:
            for message in consumer.consume(5_000, timeout=0.5):
                error = message.error()
                if error is None:
                    yield message
                elif error.code() == KafkaError._PARTITION_EOF:
                    waiting.discard((message.topic(), message.partition()))
                else:
                    raise AssertionError(error)
    finally:
        consumer.close()


def _hash(outcome: str, event: bytes) -> int:
    # Python's own: 64 bits, with a new key in every process, and the fastest there is. 0 means: none.
    return hash(outcome.encode() + event) or 1
