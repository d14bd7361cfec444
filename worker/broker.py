"""The FastStream broker: its consumer loses no record, and it describes the topics for /docs."""

import asyncio
import logging
from collections.abc import Coroutine, Mapping, Sequence
from contextvars import Context
from functools import partial
from typing import Any, Final, cast

from aiokafka import ConsumerRecord, TopicPartition
from faststream import AckPolicy
from faststream.kafka import KafkaBroker, KafkaMessage
from faststream.kafka.message import FAKE_CONSUMER
from faststream.security import (
    BaseSecurity,
    SASLOAuthBearer,
    SASLPlaintext,
    SASLScram256,
    SASLScram512,
)

from contracts.events import OrderConfirmed, OrderPlaced, OrderRejected
from worker.kafka.client_names import client_id
from worker.kafka.consuming.record_consumer import RecordConsumer
from worker.kafka.predecessor import worker_name
from worker.kafka.records import Records, estimate_fit
from worker.pipeline.consumer import OrderConsumer
from worker.pipeline.input import FETCHED_AHEAD_BYTES, PARTITION_LEAST_BYTES
from worker.settings import Settings

# FastStream sleeps as long behind a poll without records as it lets it wait. So its polls are as short as can
# be, and `_PatientConsumer` waits in their place: with 15 ms of each an order waited for up to 30.
POLL_TIMEOUT_MS: Final = 1
IDLE_POLL_MS: Final = 500
METADATA_MAX_AGE_MS: Final = 10_000
# A member learns of a rebalance from its next heartbeat, and no partition is processed until the last member
# knows. With 500 ms the longest wait of an order in a rolling restart of three workers is 0.8 s; with a third
# of the session timeout it is 3.3 s and more. A heartbeat costs some 0.2 ms.
HEARTBEAT_MS: Final = 500
# Of the first poll, while the size of the records is unknown.
FIRST_POLL_RECORDS: Final = 500


class _PatientConsumer(RecordConsumer):
    """FastStream's consumer, whose polls return at the first record, or after a long wait without one."""

    async def getmany(
        self, *partitions: TopicPartition, timeout_ms: float = 0, max_records: int | None = None
    ) -> Records:
        if timeout_ms == POLL_TIMEOUT_MS:
            timeout_ms = IDLE_POLL_MS
        return await super().getmany(*partitions, timeout_ms=timeout_ms, max_records=max_records)


class _Broker(KafkaBroker):
    """FastStream's broker, with consumers that lose no record if a poll fails, and with our login."""

    # As `Settings.kafka_client_options` has it. FastStream's own takes a password that never changes.
    client_options: Mapping[str, Any]
    max_poll_bytes: int

    async def connect(self, *args: Any, **kwargs: Any) -> Any:
        self._connection_kwargs.update(self.client_options)
        connection = await super().connect(*args, **kwargs)
        config = self.config.broker_config
        # FastStream uses aiokafka's class, and has no option for another one.
        options = cast("partial[Any]", config.builder).keywords
        options = {**options, "accepting": True, "report_out_of_range": True}
        config.builder = partial(_PatientConsumer, **options, max_poll_bytes=self.max_poll_bytes)
        return connection


def make_broker(settings: Settings) -> KafkaBroker:
    broker = _Broker(
        settings.kafka_bootstrap_servers.split(","),
        client_id=client_id(worker_name(settings)),
        security=_security(settings),
        allow_auto_create_topics=False,
        # Partitions that are added, and a topic that is recreated, are found within this time.
        metadata_max_age_ms=METADATA_MAX_AGE_MS,
        # Longer than ours: it is always `worker.runtime.serving` that ends a batch which does not end.
        graceful_timeout=settings.shutdown_timeout_seconds + 5.0,
        # A batch's records are handed on as they came; FastStream must not validate or convert them.
        apply_types=False,
        logger=logging.getLogger("worker.faststream"),
        log_level=logging.DEBUG,  # its line for each batch; its errors stay errors
    )
    broker.client_options = settings.kafka_client_options()
    # `estimate_fit` keeps a poll to one batch; this is for records that differ from those before.
    broker.max_poll_bytes = 2 * settings.batch_max_bytes
    return broker


def subscribe(broker: KafkaBroker, settings: Settings, consumer: OrderConsumer) -> Any:
    subscriber = broker.subscriber(
        settings.order_placed_topic,
        batch=True,
        group_id=settings.group_id,
        # Each of the next three is against a default that loses orders: committing before the work,
        # continuing somewhere else in the topic, and reading orders of upstream transactions that were
        # aborted.
        ack_policy=AckPolicy.MANUAL,
        auto_offset_reset="none",  # `worker.pipeline.takeover` says where to continue, never aiokafka
        isolation_level="read_committed",
        max_records=min(FIRST_POLL_RECORDS, settings.batch_max_records),
        batch_timeout_ms=POLL_TIMEOUT_MS,
        session_timeout_ms=settings.session_timeout_ms,
        heartbeat_interval_ms=min(HEARTBEAT_MS, settings.session_timeout_ms // 3),
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
        # The limits of fetching count compressed bytes; this limits what a poll unpacks.
        subscriber.max_records = estimate_fit(records, settings.batch_max_records, settings.batch_max_bytes)
        await _apart(consumer.handle_order_placed(records))

    _document_outputs(broker, settings)
    return subscriber


async def _apart(handling: Coroutine[Any, Any, None]) -> None:
    """Handle a poll outside of FastStream's context, which holds the message with all its records.

    Every connection, task and timer has the context in which it was made, a timer that was cancelled up to
    half a minute longer: in 200 partitions, 19,000 records of 2 KB were kept after they had been decided.
    """
    await asyncio.create_task(handling, context=Context())


def _document_outputs(broker: KafkaBroker, settings: Settings) -> None:
    """For /docs only: `worker.pipeline.publisher` publishes, inside a transaction."""
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


def _security(settings: Settings) -> BaseSecurity | None:
    """For /docs only: connections use `Settings.kafka_client_options`."""
    protocol = settings.kafka_security_protocol
    use_ssl = protocol.endswith("SSL")
    if not protocol.startswith("SASL"):
        return BaseSecurity(use_ssl=True) if use_ssl else None
    if settings.kafka_sasl_mechanism == "OAUTHBEARER":
        return SASLOAuthBearer(use_ssl=use_ssl)
    kinds = {"PLAIN": SASLPlaintext, "SCRAM-SHA-256": SASLScram256, "SCRAM-SHA-512": SASLScram512}
    return kinds[settings.kafka_sasl_mechanism](username="", password="", use_ssl=use_ssl)
