"""The composition root: reads the settings and builds every object, once.

Nothing is built and nothing connects at import. `faststream run worker.app:app` works too: the name
`app` is built when it is first asked for.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, cast

from aiokafka import ConsumerRecord
from faststream import AckPolicy
from faststream.asgi import AsgiFastStream, AsyncAPIRoute
from faststream.kafka import KafkaBroker, KafkaMessage
from faststream.kafka.message import FAKE_CONSUMER
from faststream.security import BaseSecurity, SASLPlaintext, SASLScram256, SASLScram512
from faststream.specification import AsyncAPI
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from contracts.events import OrderConfirmed, OrderPlaced, OrderRejected
from db.engine import create_engine, session_factory
from worker.core.settlement import OutputTopics
from worker.core.steps import Reached, nothing_happens
from worker.http import server
from worker.http.page.site import Site
from worker.http.page.sources import Sources
from worker.http.queries import ANSWER_SECONDS, MAX_CONNECTIONS, Inquiries
from worker.kafka.clients import read_topic_limits
from worker.kafka.consuming.record_consumer import RecordConsumer
from worker.kafka.records import fitting
from worker.observability import log
from worker.observability.health import Health, monitor, start_watchdog
from worker.observability.metrics import Metrics
from worker.operations.explain.search import Where
from worker.pipeline.batch import BatchProcessor
from worker.pipeline.consumer import OrderConsumer
from worker.pipeline.fetching import FETCHED_AHEAD_BYTES, PARTITION_LEAST_BYTES
from worker.pipeline.publisher import Publisher
from worker.pipeline.takeover import Takeover
from worker.pipeline.watch import Watch
from worker.pipeline.withheld import WithheldOutcomes, set_aside
from worker.settings import Settings, read_settings

# An empty poll is followed by a pause of this length, so it bounds the latency of an idle worker.
POLL_TIMEOUT_MS: Final = 15
METADATA_MAX_AGE_MS: Final = 10_000
# As long as nobody knows how large they are.
FIRST_POLL_RECORDS: Final = 500


def __getattr__(name: str) -> Any:
    if name == "app":
        settings = read_settings()
        log.configure(settings.log_level, settings.log_format)
        return build(settings)[1]
    raise AttributeError(name)


@dataclass(slots=True)
class Worker:
    """Everything a running worker is made of."""

    settings: Settings
    engine: AsyncEngine
    inquiries: Inquiries
    site: Site
    health: Health
    metrics: Metrics
    topics: OutputTopics
    publisher: Publisher
    consumer: OrderConsumer
    watch: Watch
    withheld: WithheldOutcomes

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """What surrounds FastStream's own start and stop."""
        await self.publisher.limits.read()
        start_watchdog(self.health, self.settings.stall_limit_seconds)
        tasks = [
            asyncio.create_task(monitor(self.health, {"kafka": self.watch.look, "database": self._ping})),
            asyncio.create_task(self.watch.mend()),
            asyncio.create_task(self.withheld.run()),
        ]
        self.health.started()
        try:
            yield
        finally:
            # FastStream has stopped the consumer by now: the batch in flight is settled, the group is left.
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self.watch.close()
            await self.site.closed()
            await self.consumer.published()
            self.consumer.release()
            await self.publisher.closed()
            await self.engine.dispose()
            await self.inquiries.engine.dispose()

    async def _ping(self) -> None:
        async with self.engine.connect() as connection:
            await connection.execute(text("SELECT 1"))


def build(settings: Settings, reached: Reached = nothing_happens) -> tuple[Worker, AsgiFastStream]:
    """The worker and its application, connected to nothing yet.

    `reached` is called at each named step of a batch.
    """
    metrics, health = Metrics(), Health()
    engine = create_engine(
        settings.database_url.get_secret_value(),
        schema=settings.database_schema,
        command_timeout_seconds=settings.batch_timeout_seconds,
        server_settings=_session_limits(settings),
        # A batch that meets a server which is restarted comes again anyway, and each ping takes 1 ms.
        pool_pre_ping=False,
    )
    sessions = session_factory(engine)
    topics = OutputTopics(
        confirmed=settings.order_confirmed_topic,
        rejected=settings.order_rejected_topic,
        dead_letter=settings.dead_letter_topic,
    )
    publisher = Publisher(
        group_id=settings.group_id,
        client_options=settings.kafka_client_options(),
        topics=(topics.confirmed, topics.rejected, topics.dead_letter),
        transaction_timeout_ms=settings.transaction_timeout_ms,
        reached=reached,
        read_limits=partial(read_topic_limits, settings),
        set_aside=partial(set_aside, sessions, settings.group_id),
    )
    consumer = OrderConsumer(
        processor=BatchProcessor(
            sessions=sessions,
            topics=topics,
            metrics=metrics,
            reached=reached,
            message_max_bytes=settings.message_max_bytes,
            timeout_seconds=settings.batch_timeout_seconds,
        ),
        publisher=publisher,
        takeover=Takeover(
            publisher=publisher,
            sessions=sessions,
            group_id=settings.group_id,
            topic=settings.order_placed_topic,
            client_options=settings.kafka_client_options(),
            metrics=metrics,
        ),
        sessions=sessions,
        group_id=settings.group_id,
        topic=settings.order_placed_topic,
        metrics=metrics,
        health=health,
        retry_max_seconds=settings.retry_max_seconds,
        batch_max_records=settings.batch_max_records,
        batch_max_bytes=settings.batch_max_bytes,
    )
    broker = _broker(settings)
    subscriber = _subscribe(broker, settings, consumer)
    consumer.attach(lambda: subscriber.consumer)
    watch = Watch(
        orders=consumer,
        consumer=lambda: subscriber.consumer,
        sessions=sessions,
        client_options=settings.kafka_client_options(),
        group_id=settings.group_id,
        topic=settings.order_placed_topic,
        health=health,
        metrics=metrics,
    )
    outcomes = WithheldOutcomes(
        publisher=publisher,
        sessions=sessions,
        group_id=settings.group_id,
        topic=settings.order_placed_topic,
        client_options=settings.kafka_client_options(),
        assigned=lambda: subscriber.consumer.assignment() if subscriber.consumer else frozenset(),
        health=health,
        metrics=metrics,
    )
    inquiries = _inquiries(settings)
    worker = Worker(
        settings,
        engine,
        inquiries,
        _site(settings, inquiries, health, metrics),
        health,
        metrics,
        topics,
        publisher,
        consumer,
        watch,
        outcomes,
    )
    return worker, _application(worker, broker)


def _inquiries(settings: Settings) -> Inquiries:
    engine = create_engine(
        settings.database_url.get_secret_value(),
        schema=settings.database_schema,
        application_name="order-worker http",
        command_timeout_seconds=ANSWER_SECONDS,
        server_settings=_session_limits(settings) | {"default_transaction_read_only": "on"},
        pool_size=MAX_CONNECTIONS,
        max_overflow=0,
    )
    return Inquiries(engine)


def _site(settings: Settings, inquiries: Inquiries, health: Health, metrics: Metrics) -> Site:
    sources = Sources(settings.kafka_client_options(), Where.of(settings), inquiries)
    return Site(sources, health, metrics)


def _application(worker: Worker, broker: KafkaBroker) -> AsgiFastStream:
    return server.Application(
        broker,
        paths=[*server.paths(worker.inquiries), *worker.site.paths()],
        lifespan=worker.running,
        on_shutdown=[worker.watch.look_back],
        logger=None,
        asgi_routes=server.routes(worker.health, worker.metrics),
        specification=AsyncAPI(
            title="Order worker",
            version="1.0.0",
            description="Decides orders against stock, once each: confirmed or rejected.",
        ),
        # No route to publish from, and no script from elsewhere: the page works offline.
        asyncapi_path=AsyncAPIRoute(
            "/docs",
            try_it_out_path=None,
            asyncapi_js_url=server.ASYNCAPI_SCRIPT,
            asyncapi_css_url=server.ASYNCAPI_STYLE,
        ),
    )


class _Broker(KafkaBroker):
    """FastStream's, with consumers that lose no record where a poll fails."""

    async def connect(self, *args: Any, **kwargs: Any) -> Any:
        connection = await super().connect(*args, **kwargs)
        config = self.config.broker_config
        # FastStream names aiokafka's class itself, and takes another one nowhere.
        options = cast("partial[Any]", config.builder).keywords
        config.builder = partial(RecordConsumer, **options, accepting=True, report_out_of_range=True)
        return connection


def _broker(settings: Settings) -> KafkaBroker:
    return _Broker(
        settings.kafka_bootstrap_servers.split(","),
        client_id="order-worker",
        request_timeout_ms=settings.request_timeout_ms,
        security=_security(settings),
        allow_auto_create_topics=False,
        # Partitions that are added, and a topic that is made anew, are found within this time.
        metadata_max_age_ms=METADATA_MAX_AGE_MS,
        # Longer than ours: it is always `worker.runtime.process` that ends a batch which does not end.
        graceful_timeout=settings.shutdown_timeout_seconds + 5.0,
        # A batch's records are handed on as they came; FastStream must not validate or convert them.
        apply_types=False,
        logger=logging.getLogger("worker.faststream"),
        log_level=logging.DEBUG,  # its line for each batch; its errors stay errors
    )


def _subscribe(broker: KafkaBroker, settings: Settings, consumer: OrderConsumer) -> Any:
    subscriber = broker.subscriber(
        settings.order_placed_topic,
        batch=True,
        group_id=settings.group_id,
        # Each of the next three is against a default that loses orders: committing before the work,
        # going on somewhere else in the topic, and reading orders of upstream transactions that were aborted.
        ack_policy=AckPolicy.MANUAL,
        auto_offset_reset="none",  # `worker.pipeline.takeover` says where to go on, never aiokafka
        isolation_level="read_committed",
        max_records=min(FIRST_POLL_RECORDS, settings.batch_max_records),
        batch_timeout_ms=POLL_TIMEOUT_MS,
        session_timeout_ms=settings.session_timeout_ms,
        heartbeat_interval_ms=settings.session_timeout_ms // 3,
        rebalance_timeout_ms=settings.rebalance_timeout_ms,
        max_poll_interval_ms=settings.rebalance_timeout_ms,
        # Per answer of a broker, and per partition until it is known how many there are.
        fetch_max_bytes=FETCHED_AHEAD_BYTES,
        max_partition_fetch_bytes=PARTITION_LEAST_BYTES,
        listener=consumer,
        parser=_as_it_came,
        decoder=_raw_records,
        title=settings.order_placed_topic,
        description="Decides each order once: confirmed whole or rejected whole.",
    )

    @subscriber
    async def handle_order_placed(order: OrderPlaced) -> None:
        # The annotation is what /docs shows of each message; what arrives is a tuple of raw records.
        records = cast("Sequence[ConsumerRecord]", order)
        # What is fetched ahead is limited as it came, compressed; this is what a poll unpacks of it.
        subscriber.max_records = fitting(records, settings.batch_max_records, settings.batch_max_bytes)
        await consumer.handle_order_placed(records)

    _document_outputs(broker, settings)
    return subscriber


def _document_outputs(broker: KafkaBroker, settings: Settings) -> None:
    """For /docs alone: what is published goes through `worker.pipeline.publisher`, inside a transaction."""
    for topic, event, description in (
        (settings.order_confirmed_topic, OrderConfirmed, "Stock is taken, order and items are stored."),
        (settings.order_rejected_topic, OrderRejected, "Nothing is taken; every reason is listed."),
        (settings.dead_letter_topic, bytes, "A record that could not be decided, as it came."),
    ):
        broker.publisher(topic, schema=event, title=topic, description=description)


async def _as_it_came(records: tuple[ConsumerRecord, ...]) -> KafkaMessage:
    # FastStream's own parser decodes every header as UTF-8 and needs none to be null; one odd header
    # would raise before the handler runs, and its loop would lose the batch.
    first, last = records[0], records[-1]
    return KafkaMessage(
        raw_message=records,
        body=b"",
        message_id=f"{first.topic}-{first.partition}-{first.offset}-{last.offset}",
        consumer=FAKE_CONSUMER,
    )


async def _raw_records(message: KafkaMessage) -> Any:
    return message.raw_message


def _session_limits(settings: Settings) -> dict[str, str]:
    """PostgreSQL ends what would make the others wait: a worker that is stopped holds its locks no longer."""
    return {
        "statement_timeout": str(settings.statement_timeout_ms),
        "lock_timeout": str(settings.lock_timeout_ms),
        "idle_in_transaction_session_timeout": str(settings.session_timeout_ms),
    }


def _security(settings: Settings) -> BaseSecurity | None:
    protocol = settings.kafka_security_protocol
    if protocol == "PLAINTEXT":
        return None
    options = settings.kafka_client_options()
    context = options.get("ssl_context")
    if not protocol.startswith("SASL"):
        return BaseSecurity(ssl_context=context, use_ssl=True)
    kinds = {"PLAIN": SASLPlaintext, "SCRAM-SHA-256": SASLScram256, "SCRAM-SHA-512": SASLScram512}
    return kinds[settings.kafka_sasl_mechanism](
        username=options["sasl_plain_username"],
        password=options["sasl_plain_password"],
        ssl_context=context,
        use_ssl=protocol == "SASL_SSL",
    )
