"""From the moment an order is due to be produced to the moment a `read_committed` subscriber has its outcome.

Open loop: orders are produced when they are due, however far behind the worker is, and the time counts from
when they were due: what waits because something else is late waits all the same. Producer and subscriber
are librdkafka's with its defaults (the producer waits up to 5 ms for more), and run on the same cores as
everything else.
"""

import gc
import tempfile
import threading
import time
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import islice
from math import sqrt
from pathlib import Path
from statistics import median
from typing import Final

from confluent_kafka import KafkaError, Producer

from bench import report
from bench.contenders import Contender, worker
from bench.drain import PARTITIONS, Scene, require_right, scene, wait_until_shared_out
from bench.errors import BenchError
from bench.plot import Lines
from bench.run import Bench
from bench.shop import stock_taken
from bench.workload import Workload
from worker.operations.place.messages import Message

SECONDS: Final = 30.0
WARM_UP_SECONDS: Final = 5.0
IDLE_RATE: Final = 20.0  # orders a second: none meets another
LOADS: Final = (0.1, 0.5, 0.8)  # of the peak
PEAK_ORDERS: Final = 120_000
PERCENTILES: Final = (0.5, 0.99, 0.999)
MOST_ROUNDS: Final = 3  # of two and a half minutes each
_SETTLED_WITHIN_SECONDS: Final = 60.0
_TICK_SECONDS: Final = 0.002  # so much of a latency may be the producer's own


def measure(bench: Bench) -> report.Section:
    """One row a load: idle, and shares of the peak that a drain showed just before."""
    contender = worker(2)
    peak = bench.drain(contender, Workload(bench.orders(PEAK_ORDERS))).orders_per_second
    loads = {f"idle ({IDLE_RATE:.0f}/s)": IDLE_RATE}
    loads |= {f"{share:.0%} of peak ({peak * share:,.0f}/s)": peak * share for share in LOADS}
    rounds = replace(bench, rounds=min(bench.rounds, MOST_ROUNDS)).interleaved(
        {name: partial(_measure, bench, orders_a_second) for name, orders_a_second in loads.items()},
        lambda times: f"p50 {milliseconds(times, 0.5):>6,.0f} ms, p99 {milliseconds(times, 0.99):>6,.0f} ms",
    )
    rows, curves = [], {}
    for name, times_of_each in rounds.items():
        each = [[milliseconds(times, share) for times in times_of_each] for share in PERCENTILES]
        medians = [f"{median(of_rounds):,.0f}" for of_rounds in each]
        spread = f"{min(each[1]):,.0f}–{max(each[1]):,.0f}"
        rows.append((name, *medians[:2], spread, *medians[2:], f"{len(times_of_each[0]):,}"))
        curves[name] = [
            (p / 1_000, median(milliseconds(times, p / 1_000) for times in times_of_each))
            for p in range(0, 1_000, 5)
        ]
    head = ("load", "p50 ms", "p99 ms", "p99 range", "p99.9 ms", "orders")
    notes = [
        f"worker × 2, 4 partitions; peak {peak:,.0f} orders/s, by a drain just before; every result right",
        f"{SECONDS * bench.scale:.0f} s each, after {WARM_UP_SECONDS:.0f} s at a rising rate;"
        f" medians of {len(next(iter(rounds.values())))} interleaved rounds",
        "from when an order is due to be produced to its outcome in the hands of a read_committed subscriber",
    ]
    lines = Lines("share of orders", {"milliseconds or less": curves}, logarithmic=True)
    return report.Section("latency", "Latency, open loop", report.Columns(head, rows), notes, lines)


def percentile(ordered: Sequence[float], share: float) -> float:
    """The smallest value that so large a share of them does not exceed."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def milliseconds(times: Sequence[float], share: float) -> float:
    return 1_000 * percentile(times, share)


def _measure(bench: Bench, orders_a_second: float) -> list[float]:
    """The seconds of each order after the warm-up, ascending."""
    return measure_worker(bench, worker(2), orders_a_second, SECONDS * bench.scale)


def measure_worker(
    bench: Bench, contender: Contender, orders_a_second: float, seconds: float, partitions: int = PARTITIONS
) -> list[float]:
    """From due to seen, of each order after the warm-up, ascending; the result is checked."""
    due = due_seconds(orders_a_second, seconds)
    workload = Workload(len(due))
    with (
        scene(bench.servers, partitions) as here,
        tempfile.TemporaryDirectory(prefix="order-worker-bench-") as folder,
    ):
        before = stock_taken(here.database_url)
        with here.crew(contender, Path(folder)) as crew:
            wait_until_shared_out(here, crew)
            times = times_from_due(here, list(workload.messages()), due)
            crew.stop()
        require_right(here, contender, workload, before)
    return times


def times_from_due(here: Scene, messages: Sequence[Message], due: Sequence[float]) -> list[float]:
    """Produce each when it is due, and wait for its outcome: the seconds between, ascending."""
    # A run of the garbage collector would stop producer and subscriber for as long as it takes.
    with _no_collector(), _Subscriber(here, {message.key for message in messages}) as subscriber:
        began = time.monotonic() + 0.5
        _produce(here, messages, [began + seconds for seconds in due])
        seen = subscriber.wait()
    of_each = zip(messages, due, strict=True)
    return sorted(seen[m.key] - began - seconds for m, seconds in of_each if seconds >= WARM_UP_SECONDS)


def due_seconds(orders_a_second: float, seconds: float) -> list[float]:
    """When each order is due: at a rate that rises evenly while all warms up, then at the full one, so long.

    Begun at the full rate, at half of the peak, orders waited for a second at first, and what had piled up
    was part of the 99th percentile of all that came later.
    """
    rising = int(orders_a_second * WARM_UP_SECONDS / 2)
    return [
        *(sqrt(2 * WARM_UP_SECONDS * number / orders_a_second) for number in range(rising)),
        *(
            WARM_UP_SECONDS + number / orders_a_second
            for number in range(max(2, round(orders_a_second * seconds)))
        ),
    ]


@contextmanager
def _no_collector() -> Iterator[None]:
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _produce(here: Scene, messages: Sequence[Message], due: Sequence[float]) -> None:
    producer = Producer(
        {
            "bootstrap.servers": here.servers.cluster.bootstrap_servers,
            "acks": "all",
            "enable.idempotence": True,
            "partitioner": "murmur2_random",
            "log_level": 0,
        }
    )
    rest, number = iter(messages), 0
    while number < len(messages):
        # The orders of a tick are sent together: waking up for each of them took a large part of a core.
        until = bisect_right(due, time.monotonic(), number)
        for message in islice(rest, until - number):
            producer.produce(here.topics.placed, message.value, message.key)
        number = until
        producer.poll(0)
        time.sleep(_TICK_SECONDS)
    if producer.flush(30):
        raise BenchError("Kafka did not take all orders within 30 s")


class _Subscriber:
    """Reads outcomes in a thread of its own, and keeps when it had each of those expected."""

    def __init__(self, here: Scene, keys: set[bytes]) -> None:
        self._consumer = here.servers.cluster.subscriber(here.topics.outcomes, here.topics)
        self._keys = keys
        self._seen: dict[bytes, float] = {}
        self._error: KafkaError | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> "_Subscriber":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._consumer.close()

    def wait(self) -> dict[bytes, float]:
        """When each outcome was here, by key, once all are."""
        deadline = time.monotonic() + _SETTLED_WITHIN_SECONDS
        while len(self._seen) < len(self._keys):
            if self._error or time.monotonic() > deadline:
                why = f": {self._error}" if self._error else f" within {_SETTLED_WITHIN_SECONDS:g} s"
                raise BenchError(f"{len(self._keys) - len(self._seen)} outcomes did not come{why}")
            time.sleep(0.05)
        return self._seen

    def _read(self) -> None:
        while not self._ended.is_set():
            records = self._consumer.consume(500, 0.005)
            now = time.monotonic()
            for record in records:
                error = record.error()
                if error is None:
                    self._seen.setdefault(record.key() or b"", now)
                else:
                    self._error = error
