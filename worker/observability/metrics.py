"""The worker's Prometheus metrics. One object, built by the composition root."""

import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, Literal, get_args

from aiokafka import ConsumerRecord
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
    disable_created_metrics,
)

from contracts.events import DeadLetterCode, ReasonCode
from worker import __version__
from worker.core.results import Fate
from worker.observability.batch import BatchInHand
from worker.observability.latency import OrderLatency
from worker.observability.tracing import NO_TRACING, Tracing

Server = Literal["database", "kafka", "worker"]
Phase = Literal["take_over", "decode", "database", "wait", "record", "publish"]
Cause = Literal[
    "outage",  # a server is away, overloaded, or late
    "fenced",  # another worker has taken the partition over
    "refused",  # Kafka refuses what was sent, and the next attempt sends it differently
    "operator",  # it waits until an operator has repaired what the log names
    "database_replaced",  # PostgreSQL is not the one that this worker knows
    "unforeseen",  # a fault of the worker
]
_RERUN_ERRORS: Final = (
    *("StaleReadError", "DBAPIError", "IntegrityError", "DeadlockDetectedError", "SerializationError"),
    *("UniqueViolationError", "ForeignKeyViolationError"),
)
"""The known label values; any other series starts with its first occurrence."""

_BATCH_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
_PHASE_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_REBALANCE_SECONDS: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 20.0, 30.0, 60.0)


class Metrics:
    """Counters go up only after what they count is committed to Kafka.

    All known label values exist from the start, so that no first increment is missed.
    """

    def __init__(self, tracing: Tracing = NO_TRACING) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each counter that nobody asked for
        self.tracing = tracing
        self.registry = CollectorRegistry()
        self._add_orders()
        self._add_batches()
        self._add_partitions()
        self._add_process()

    def _add_orders(self) -> None:
        r = self.registry
        self.confirmed = Counter(
            "order_worker_orders_confirmed", "Orders confirmed and published", registry=r
        )
        self.rejected = Counter("order_worker_orders_rejected", "Orders rejected and published", registry=r)
        self.reasons = _labelled(
            Counter("order_worker_rejection_reasons", "Reasons given, by code", ["code"], registry=r),
            [code.value for code in ReasonCode],
        )
        self.redelivered = Counter(
            "order_worker_orders_redelivered", "Stored outcomes published again", registry=r
        )
        self.silenced = Counter(
            "order_worker_orders_silenced", "Decided orders skipped in a replay", registry=r
        )
        self.duplicates = Counter(
            "order_worker_orders_duplicate", "Orders sent twice, nothing done", registry=r
        )
        self.dead_letters = _labelled(
            Counter("order_worker_dead_letters", "Records that could not be decided", ["code"], registry=r),
            [code.value for code in DeadLetterCode],
        )
        self.open_dead_letters = Gauge(
            "order_worker_open_dead_letters",
            "Dead letters neither redriven nor settled, of the newest 400, as the owner of partition 0 says",
            ["code"],
            registry=r,
        )
        self.unknown_fields = Counter(
            "order_worker_unknown_fields", "Fields outside the contract, ignored", registry=r
        )
        self.withheld = Gauge(
            "order_worker_withheld_outcomes",
            "Decided outcomes that their topic refuses",
            ["partition"],
            registry=r,
        )
        self.latency = OrderLatency()
        r.register(self.latency)

    def _add_batches(self) -> None:
        r = self.registry
        self.batches = Counter("order_worker_batches", "Batches finished", registry=r)
        self.batch_records = Histogram(
            "order_worker_batch_records",
            "Records in a batch",
            buckets=(1, 10, 100, 500, 1000, 2000, 5000, 8000, 20000),
            registry=r,
        )
        self.batch_seconds = Histogram(
            "order_worker_batch_seconds",
            "From polled records to committed offsets",
            buckets=_BATCH_SECONDS,
            registry=r,
        )
        phases = Histogram(
            "order_worker_phase_seconds", "Phases of a batch", ["phase"], buckets=_PHASE_SECONDS, registry=r
        )
        # Looked up once: `labels` takes a lock.
        self._phases = {phase: phases.labels(phase) for phase in get_args(Phase)}
        self.reruns = _labelled(
            Counter("order_worker_batch_reruns", "Database transactions run again", ["why"], registry=r),
            _RERUN_ERRORS,
        )
        self.retries = _labelled(
            Counter(
                "order_worker_batch_retries", "Batches rewound to be retried later", ["server"], registry=r
            ),
            get_args(Server),
        )
        self.retry_causes = _labelled(
            Counter("order_worker_retry_causes", "Batches rewound, by cause", ["cause"], registry=r),
            get_args(Cause),
        )

    def _add_partitions(self) -> None:
        r = self.registry
        self.takeovers = Counter("order_worker_partition_takeovers", "Partitions taken over", registry=r)
        self.rebalance_seconds = Histogram(
            "order_worker_rebalance_seconds",
            "From partitions revoked to partitions assigned",
            buckets=_REBALANCE_SECONDS,
            registry=r,
        )
        self._rebalance_began: float | None = None  # monotonic seconds
        self.lag = Gauge(
            "order_worker_consumer_lag_records",
            "Records not yet published, of this worker's partitions and of those without an owner",
            ["partition"],
            registry=r,
        )
        self.hidden = Gauge(
            "order_worker_hidden_records",
            "Records hidden by an open upstream transaction",
            ["partition"],
            registry=r,
        )
        self.unowned = Gauge("order_worker_unowned_partitions", "Partitions that no worker owns", registry=r)
        self.waiting = Gauge(
            "order_worker_waiting_partitions", "Partitions of this worker that are not processed", registry=r
        )
        self.unreadable = Gauge(
            "order_worker_unreadable_offsets",
            "Offsets at a partition's head that cannot be unpacked",
            ["partition"],
            registry=r,
        )
        self.deleted_offsets = Counter(
            "order_worker_deleted_offsets",
            "Offsets deleted from the topic before they were decided",
            ["partition"],
            registry=r,
        )
        self.skipped_offsets = Counter(
            "order_worker_skipped_offsets", "Offsets skipped for an operator", ["partition"], registry=r
        )
        self.other_logs = Counter(
            "order_worker_partition_logs_replaced",
            "Partitions whose log was truncated or recreated",
            registry=r,
        )

    def _add_process(self) -> None:
        r = self.registry
        self.ready = Gauge("order_worker_ready", "1 where /readyz answers 200", registry=r)
        self.clock_offset = Gauge(
            "order_worker_clock_offset_seconds",
            "How far this worker's clock is ahead of PostgreSQL's",
            registry=r,
        )
        build = Info("order_worker_build", "What runs", registry=r)
        build.info({"version": __version__, "python": platform.python_version()})
        ProcessCollector(registry=r)

    @contextmanager
    def phase(self, name: Phase) -> Iterator[None]:
        """Time the block, also if it raises; with tracing, it is a span of the current batch."""
        began = time.monotonic()
        with self.tracing.phase(name):
            try:
                yield
            finally:
                self._phases[name].observe(time.monotonic() - began)

    def begin_batch(self, records: Mapping[Any, Sequence[ConsumerRecord]]) -> BatchInHand:
        """Time a batch from now on."""
        return BatchInHand(self.tracing.batch(records), self._finished)

    def _finished(self, records: int, seconds: float) -> None:
        self.batches.inc()
        self.batch_records.observe(records)
        self.batch_seconds.observe(seconds)

    def rebalance_begins(self) -> None:
        """A rebalance begins; a second call before it ends changes nothing."""
        if self._rebalance_began is None:
            self._rebalance_began = time.monotonic()

    def rebalance_ends(self) -> None:
        """The rebalance ends: partitions are assigned."""
        if self._rebalance_began is not None:
            self.rebalance_seconds.observe(time.monotonic() - self._rebalance_began)
            self._rebalance_began = None

    def know_partition(self, number: int) -> None:
        """Start the counters of an assigned partition at zero."""
        self.deleted_offsets.labels(str(number))
        self.skipped_offsets.labels(str(number))

    def count(self, kinds: Mapping[tuple[Fate, tuple[str, ...]], int]) -> None:
        """Count published records by their fate and its codes.

        The caller adds them up first: each increment of a metric takes a lock.
        """
        counters = {
            Fate.CONFIRMED: self.confirmed,
            Fate.REJECTED: self.rejected,
            Fate.REDELIVERED: self.redelivered,
            Fate.SILENCED: self.silenced,
            Fate.DUPLICATE: self.duplicates,
        }
        for (fate, codes), count in kinds.items():
            if fate is Fate.DEAD_LETTER:
                self.dead_letters.labels(codes[0]).inc(count)
                continue
            counters[fate].inc(count)
            for code in codes:
                self.reasons.labels(code).inc(count)


def _labelled(counter: Counter, values: Sequence[str]) -> Counter:
    """The metric, with a series for each of these label values."""
    for value in values:
        counter.labels(value)
    return counter
