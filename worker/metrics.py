"""What the worker counts, in Prometheus' form. One object, built by the composition root."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics


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
        self.takeovers = Counter("order_worker_partition_takeovers", "Partitions taken over", registry=r)
        self.lag = Gauge(
            "order_worker_consumer_lag_records", "Records not yet decided", ["partition"], registry=r
        )
