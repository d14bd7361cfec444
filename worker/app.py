"""The composition root: reads the settings and builds every object, once.

Nothing is built and nothing connects at import. `faststream run worker.app:app` works too: the name
`app` is built when it is first asked for.
"""

import os
from functools import partial
from typing import Any

from faststream.asgi import AsgiFastStream
from faststream.kafka import KafkaBroker
from faststream.specification import AsyncAPI
from prometheus_client import make_asgi_app

from contracts.version import __version__
from db.engine import create_engine, session_factory
from worker.broker import make_broker, subscribe
from worker.core.steps import Reached, nothing_happens
from worker.database import database_login, reading_engine, session_limits
from worker.http import events_page, server
from worker.http.events_page import EventsDocument, EventsPage
from worker.http.outcomes import OutcomeEndpoint
from worker.http.page.open_letters import OpenLetters
from worker.http.page.site import Site
from worker.http.page.sources import Sources
from worker.http.queries import ANSWER_SECONDS, MAX_CONNECTIONS, Inquiries
from worker.kafka.clients import read_topic_limits
from worker.kafka.consumer_group import ConsumerGroup
from worker.kafka.limits.output_limits import OutputLimits
from worker.kafka.producing.lease import Leases
from worker.lifespan import Worker
from worker.observability import log
from worker.observability.health import Health
from worker.observability.history import History, buckets_of
from worker.observability.metrics import Metrics
from worker.observability.partition_states import PartitionStates
from worker.observability.tracing_settings import make_tracing
from worker.pipeline.batch import BatchProcessor
from worker.pipeline.consumer import OrderConsumer
from worker.pipeline.flow import Flow
from worker.pipeline.idle import IdlePartitions
from worker.pipeline.input import Input
from worker.pipeline.maintenance import Maintenance
from worker.pipeline.owner import Owner
from worker.pipeline.partition import Partitions
from worker.pipeline.publisher import Publisher
from worker.pipeline.retries import Pauses, Retries
from worker.pipeline.takeover import Takeover
from worker.pipeline.watch import Watch
from worker.pipeline.withheld import WithheldOutcomes
from worker.settings import Settings, read_settings
from worker.table_checks import TableChecks


def __getattr__(name: str) -> Any:
    if name == "app":
        settings = read_settings()
        log.configure(settings.log_level, settings.log_format)
        return build(settings)[1]
    raise AttributeError(name)


def build(settings: Settings, reached: Reached = nothing_happens) -> tuple[Worker, AsgiFastStream]:
    """Build the worker and its application; no connection is made yet.

    `reached` is called at each named step of a batch.
    """
    health = Health()
    metrics = Metrics(make_tracing(os.environ, settings.order_placed_topic, settings.group_id))
    metrics.ready.set_function(lambda: not health.troubles())
    history = History(partial(buckets_of, metrics.batch_seconds))
    engine = create_engine(
        **database_login(settings),
        schema=settings.database_schema,
        command_timeout_seconds=settings.batch_timeout_seconds,
        server_settings=session_limits(settings),
        # A batch whose connection breaks is read again anyway, and each ping takes 1 ms.
        pool_pre_ping=False,
    )
    sessions = session_factory(engine)
    topics = settings.topics
    group = ConsumerGroup(settings.group_id, settings.order_placed_topic, sessions)
    limits = OutputLimits(topics.outputs, partial(read_topic_limits, settings))
    leases = Leases(
        group,
        client_options=settings.kafka_client_options(),
        topics=topics.outputs,
        transaction_timeout_ms=settings.transaction_timeout_ms,
        least_in_sync=limits.least_in_sync,
        reached=reached,
    )
    publisher = Publisher(settings.group_id, limits, reached)
    source = Input(settings.batch_max_records, settings.batch_max_bytes)
    partitions, pauses = Partitions(), Pauses(lambda: source.consumer)
    retries = Retries(
        source=source,
        partitions=partitions,
        pauses=pauses,
        health=health,
        metrics=metrics,
        max_seconds=settings.retry_max_seconds,
    )
    owner = Owner(
        topic=settings.order_placed_topic,
        source=source,
        partitions=partitions,
        takeover=Takeover(group, leases, publisher, metrics),
        leases=leases,
        retries=retries,
        health=health,
    )
    flow = Flow(
        group=group,
        source=source,
        partitions=partitions,
        owner=owner,
        retries=retries,
        processor=BatchProcessor(
            sessions=sessions,
            topics=topics,
            metrics=metrics,
            reached=reached,
            message_max_bytes=settings.message_max_bytes,
            timeout_seconds=settings.batch_timeout_seconds,
        ),
        publisher=publisher,
        tables=TableChecks(engine, settings.batch_timeout_seconds),
        health=health,
        metrics=metrics,
        batch_max_bytes=settings.batch_max_bytes,
    )
    consumer = OrderConsumer(
        source=source,
        partitions=partitions,
        pauses=pauses,
        owner=owner,
        flow=flow,
        retries=retries,
        health=health,
        metrics=metrics,
    )
    idle = IdlePartitions(
        group=group,
        orders=consumer,
        flow=flow,
        source=source,
        partitions=partitions,
        pauses=pauses,
        owner=owner,
        leases=leases,
        publisher=publisher,
        retries=retries,
        health=health,
    )
    watch = Watch(
        group=group,
        client_options=settings.kafka_client_options(),
        source=source,
        producers=leases.producers,
        partitions=partitions,
        flow=flow,
        health=health,
        metrics=metrics,
        history=history,
    )
    metrics.registry.register(PartitionStates(watch.states))
    maintenance = Maintenance(
        group=group,
        watch=watch,
        source=source,
        partitions=partitions,
        flow=flow,
        idle=idle,
        health=health,
        metrics=metrics,
        batch_timeout_seconds=settings.batch_timeout_seconds,
    )
    withheld = WithheldOutcomes(
        group=group,
        leases=leases,
        limits=limits,
        assigned=source.assignment,
        health=health,
        metrics=metrics,
    )
    broker = make_broker(settings)
    subscriber = subscribe(broker, settings, consumer)
    source.attach(lambda: subscriber.consumer)
    inquiries = Inquiries(reading_engine(settings, "order-worker http", MAX_CONNECTIONS, ANSWER_SECONDS))
    sources = Sources(settings.kafka_client_options(), settings, inquiries)
    worker = Worker(
        settings,
        engine,
        inquiries,
        Site(sources, health, metrics, history),
        OutcomeEndpoint(inquiries, sources.letters_of_orders, health),
        health,
        metrics,
        limits,
        leases,
        consumer,
        watch,
        maintenance,
        withheld,
        OpenLetters(sources, source.assignment, metrics),
    )
    return worker, _application(worker, broker)


def _application(worker: Worker, broker: KafkaBroker) -> AsgiFastStream:
    document = EventsDocument(worker.settings)
    return server.Application(
        broker,
        routes=[
            *server.routes(worker.health),
            *worker.outcomes.routes(),
            *worker.site.routes(),
            *events_page.routes(document),
        ],
        lifespan=worker.running,
        on_shutdown=[worker.leaving],
        logger=None,
        asgi_routes=[("/metrics", make_asgi_app(worker.metrics.registry))],
        specification=AsyncAPI(
            title="Order worker",
            version=__version__,
            description="Decides orders against stock, once each: confirmed or rejected.",
        ),
        asyncapi_path=EventsPage(document),
    )
