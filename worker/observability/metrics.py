"""What the worker counts, in Prometheus' form. One object, built by the composition root."""

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics

from worker.core.settlement import Fate


class Metrics:
    """Counters go up only after the fact they count is committed to Kafka."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each counter that nobody asked for
        self.registry = r = CollectorRegistry()
        self.confirmed = Counter(
            "order_worker_orders_confirmed", "Orders confirmed and announced", registry=r
        )
        self.rejected = Counter("order_worker_orders_rejected", "Orders rejected and announced", registry=r)
        self.reasons = Counter(
            "order_worker_rejection_reasons", "Reasons given, by code", ["code"], registry=r
        )
        self.redelivered = Counter(
            "order_worker_orders_redelivered", "Stored outcomes announced again", registry=r
        )
        self.silenced = Counter(
            "order_worker_orders_silenced", "Decided orders passed over in a silent replay", registry=r
        )
        self.duplicates = Counter(
            "order_worker_orders_duplicate", "Orders sent twice, nothing done", registry=r
        )
        self.dead_letters = Counter(
            "order_worker_dead_letters", "Records that could not be decided", ["code"], registry=r
        )
        self.unknown_fields = Counter(
            "order_worker_unknown_fields", "Fields outside the contract, ignored", registry=r
        )
        self.batches = Counter("order_worker_batches", "Batches finished", registry=r)
        self.batch_records = Histogram(
            "order_worker_batch_records",
            "Records in a batch",
            buckets=(1, 10, 100, 500, 1000, 2000, 5000),
            registry=r,
        )
        self.batch_seconds = Histogram(
            "order_worker_batch_seconds", "From records in hand to offsets committed", registry=r
        )
        self.reruns = Counter(
            "order_worker_batch_reruns", "Database transactions run again", ["why"], registry=r
        )
        self.retries = Counter(
            "order_worker_batch_retries", "Batches set back to be retried later", ["server"], registry=r
        )
        self.withheld = Gauge(
            "order_worker_withheld_outcomes",
            "Outcomes that are decided, and that their topic refuses",
            ["partition"],
            registry=r,
        )
        self.takeovers = Counter("order_worker_partition_takeovers", "Partitions taken over", registry=r)
        self.lag = Gauge(
            "order_worker_consumer_lag_records",
            "Records not yet published, of this worker's partitions and of those nobody owns",
            ["partition"],
            registry=r,
        )
        self.hidden = Gauge(
            "order_worker_hidden_records",
            "Records behind an upstream transaction that is still open",
            ["partition"],
            registry=r,
        )
        self.unowned = Gauge("order_worker_unowned_partitions", "Partitions that no worker owns", registry=r)
        self.waiting = Gauge(
            "order_worker_waiting_partitions", "Partitions of this worker that do not go on", registry=r
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
            "order_worker_skipped_offsets", "Offsets passed over for an operator", ["partition"], registry=r
        )
        self.other_logs = Counter(
            "order_worker_partition_logs_replaced", "Partitions whose log was cut or made anew", registry=r
        )

    def count(self, kinds: Mapping[tuple[Fate, tuple[str, ...]], int]) -> None:
        """What became of published records: how many of each fate with its codes.

        Added up before: each increment of a metric takes a lock.
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
