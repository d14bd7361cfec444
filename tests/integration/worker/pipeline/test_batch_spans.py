"""One span a batch, its phases below it, its records' traces linked; and what the metrics count of it."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiokafka.errors import KafkaConnectionError
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from db.engine import create_engine, session_factory
from tests.support.consumer_stage import FIRST, OTHER, POLLED, RECORDS, Stage
from tests.support.shop import Shop
from worker.observability.metrics import Metrics
from worker.observability.opentelemetry_tracing import OpenTelemetryTracing
from worker.pipeline.retries import DatabaseReplacedError


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
async def stage(exporter: InMemorySpanExporter, database_url: str, shop: Shop) -> AsyncIterator[Stage]:
    """As that of `test_consumer`, and traced."""
    await asyncio.to_thread(shop.stock_up, {1: 100})
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    metrics = Metrics(OpenTelemetryTracing(provider, "order-placed", "group"))
    engine = create_engine(database_url, pool_size=1, max_overflow=0)
    yield Stage(session_factory(engine), 1024 * 1024, metrics)
    await engine.dispose()


def batches(exporter: InMemorySpanExporter) -> list[ReadableSpan]:
    return [span for span in exporter.get_finished_spans() if span.name == "process order-placed"]


def phases(exporter: InMemorySpanExporter, batch: ReadableSpan) -> list[str]:
    assert batch.context
    return [
        span.name
        for span in exporter.get_finished_spans()
        if span.parent and span.parent.span_id == batch.context.span_id
    ]


def value(stage: Stage, name: str, **labels: str) -> float | None:
    return stage.metrics.registry.get_sample_value(name, labels)


async def test_a_batch_is_a_span_with_its_phases_also_where_two_overlap(
    stage: Stage, exporter: InMemorySpanExporter
):
    held = stage.publisher.hold(FIRST)
    await stage.next_batch()
    async with asyncio.TaskGroup() as beside:
        beside.create_task(stage.next_batch())
        await stage.decided(2)
        held.set_result(None)
    await stage.flow.wait_published()
    first, second = batches(exporter)
    assert phases(exporter, first) == ["decode", "database", "wait", "publish"]
    assert phases(exporter, second) == ["decode", "database", "wait", "record", "publish"]
    for batch in (first, second):
        assert batch.kind is SpanKind.CONSUMER
        assert batch.parent is None
        assert batch.attributes
        assert batch.attributes["messaging.batch.message_count"] == 2 * POLLED
        assert batch.attributes["messaging.consumer.group.name"] == "group"
        assert batch.status.status_code is StatusCode.UNSET
    assert value(stage, "order_worker_phase_seconds_count", phase="publish") == 2
    assert value(stage, "order_worker_phase_seconds_count", phase="record") == 1
    assert value(stage, "order_worker_batch_seconds_count") == 2
    assert value(stage, "order_worker_order_latency_seconds_count") == 4 * POLLED


async def test_a_batch_that_is_not_published_says_why_and_counts_no_latency(
    stage: Stage, exporter: InMemorySpanExporter
):
    held = stage.publisher.hold(FIRST)
    await stage.next_batch()
    held.set_exception(KafkaConnectionError("gone"))
    await stage.flow.wait_published()
    (batch,) = batches(exporter)
    assert batch.status.status_code is StatusCode.ERROR
    assert batch.status.description == "KafkaConnectionError: gone"
    assert not batch.events, "an exception that is recorded may hold what a record holds"
    assert value(stage, "order_worker_retry_causes_total", cause="outage") == 1
    assert not value(stage, "order_worker_order_latency_seconds_count")
    await stage.publish_the_rest()
    assert value(stage, "order_worker_order_latency_seconds_count") == 2 * RECORDS


async def test_a_batch_that_is_not_decided_ends_its_span_too(stage: Stage, exporter: InMemorySpanExporter):
    stage.processor.fail().set_exception(DatabaseReplacedError("of a backup"))
    await stage.next_batch()
    (batch,) = batches(exporter)
    assert batch.status.description == "DatabaseReplacedError: of a backup"
    assert value(stage, "order_worker_retry_causes_total", cause="database_replaced") == 1


async def test_the_oldest_order_is_that_of_the_first_batch_that_is_not_published(stage: Stage):
    placed_ms = stage.input.records[FIRST][0].timestamp
    first, other = stage.partitions[FIRST], stage.partitions[OTHER]
    assert first.oldest_ms() is None
    held = stage.publisher.hold(FIRST)
    await stage.next_batch()
    assert (first.oldest_ms(), other.oldest_ms()) == (placed_ms, placed_ms)
    held.set_exception(KafkaConnectionError())
    await stage.flow.wait_published()
    assert first.oldest_ms() == placed_ms, "it waits to be tried again"
    await stage.publish_the_rest()
    assert (first.oldest_ms(), other.oldest_ms()) == (None, None)


async def test_a_rebalance_is_counted_from_what_is_given_up_to_what_is_assigned(stage: Stage):
    await stage.consumer.on_partitions_revoked([])
    await stage.consumer.on_partitions_assigned([FIRST])
    assert value(stage, "order_worker_rebalance_seconds_count") == 1
