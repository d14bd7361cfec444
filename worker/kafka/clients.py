"""Kafka clients for commands and checks. Every failure becomes an error of one line, without passwords."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Final, TypeVar

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, NodeNotReadyError, TopicAuthorizationFailedError
from aiokafka.protocol.metadata import MetadataRequest

from worker.error_texts import reason_of
from worker.errors import CommandError
from worker.kafka.limits.remarks import LETTER_HEADER_BYTES, Use, remarks
from worker.kafka.limits.topic_limits import SETTINGS, TopicLimits, parse_limits, settings_of
from worker.kafka_login import refused_login
from worker.secret_files import CredentialError
from worker.settings import Settings

LIMIT_SECONDS: Final = 5.0
T = TypeVar("T")
_NEXT_NODE_SECONDS: Final = 0.2
_TOPIC_TRIES: Final = 5
_TOPIC_PAUSE_SECONDS: Final = 0.3
_KAFKA_VARIABLE: Final = "ORDER_WORKER_KAFKA_BOOTSTRAP_SERVERS"
KAFKA_ERRORS: Final = (KafkaError, OSError, TimeoutError)
"""errors of Kafka and of the connection to it, including TLS, whose errors are OSErrors"""


@asynccontextmanager
async def kafka_admin(settings: Settings) -> AsyncIterator[AIOKafkaAdminClient]:
    """An admin client that has reached a broker, or a CommandError that says why it could not.

    aiokafka's log is not shown meanwhile: its last error becomes the reason.
    """
    servers = settings.kafka_bootstrap_servers
    options = settings.kafka_client_options()
    with quiet_aiokafka() as last_error:
        client = AIOKafkaAdminClient(**options, retry_backoff_ms=200)
        try:
            try:
                await _start(client, servers, last_error)
            except CommandError as error:
                raise (refused_login(options) or error) from None
            yield client
        finally:
            await client.close()


async def require_topics(settings: Settings, *names: str) -> None:
    """Raise CommandError, which names them, if some of these topics, by default all four, do not exist."""
    wanted = names or settings.topics.all
    async with kafka_admin(settings) as client:
        for tries in range(_TOPIC_TRIES):
            # Just created, they need not be known to the broker that is asked.
            await asyncio.sleep(_TOPIC_PAUSE_SECONDS if tries else 0)
            present = set(await of_some_node(client.list_topics))
            missing = [name for name in wanted if name not in present]
            if not missing:
                return
        hidden = await _hidden(client, missing)
    if hidden:
        raise CommandError(
            f"the user may not see the topic{'s' * (len(hidden) > 1)} {', '.join(hidden)} in Kafka at"
            f" {settings.kafka_bootstrap_servers}",
            "grant it what deploy/kafka/acls.sh grants",
        )
    raise CommandError(
        f"Kafka at {settings.kafka_bootstrap_servers} lacks the topic{'s' * (len(missing) > 1)}"
        f" {', '.join(missing)}",
        "run `order-worker topics create`",
        code="topics_missing",
    )


async def _hidden(client: AIOKafkaAdminClient, names: list[str]) -> list[str]:
    """The topics that our user may not see; Kafka does not say whether they exist."""
    question = MetadataRequest(names, allow_auto_topic_creation=False)
    topics = (await of_some_node(lambda: client._send_request(question))).to_object()["topics"]
    return [one["topic"] for one in topics if one["error_code"] == TopicAuthorizationFailedError.errno]


async def read_topic_limits(settings: Settings, topics: Iterable[str]) -> dict[str, TopicLimits]:
    """The limits of each topic, from its settings; without topics that are missing or that we may not read.

    May be called inside a worker, also concurrently. Raises KafkaError, OSError or TimeoutError.
    """
    try:
        options = settings.kafka_client_options()
    except CommandError as error:
        raise CredentialError(str(error)) from None  # a secret file that is being replaced
    client = AIOKafkaAdminClient(**options)
    try:
        async with asyncio.timeout(LIMIT_SECONDS):
            await client.start()
        return await describe_limits(client, topics)
    finally:
        await client.close()


async def largest_record_bytes(settings: Settings, topic: str) -> int:
    """The largest record batch that the topic accepts, or Kafka's default of 1 MiB if we may not read it."""
    async with kafka_admin(settings) as client:
        try:
            found = await describe_limits(client, [topic])
        except KAFKA_ERRORS as error:
            raise CommandError(f"cannot read the settings of topic {topic}: {reason_of(error)}") from error
    return found.get(topic, TopicLimits()).max_batch_bytes


async def describe_limits(client: AIOKafkaAdminClient, topics: Iterable[str]) -> dict[str, TopicLimits]:
    """As `read_topic_limits`, with an existing client."""
    asked = [ConfigResource(ConfigResourceType.TOPIC, topic, dict.fromkeys(SETTINGS)) for topic in topics]
    responses = await of_some_node(lambda: client.describe_configs(asked))
    return {topic: parse_limits(values) for topic, values in settings_of(responses).items()}


async def topic_remarks(settings: Settings) -> list[str]:
    """Harmful settings of the four topics, a line each; nothing if we may not read them."""
    uses = topic_uses(settings)
    try:
        found = await read_topic_limits(settings, uses)
    except KAFKA_ERRORS:
        return []  # other checks report what is wrong with Kafka
    placed = found.get(settings.order_placed_topic, TopicLimits())
    return [
        remark
        for topic, limits in found.items()
        for remark in remarks(topic, uses[topic], limits, placed.max_batch_bytes + LETTER_HEADER_BYTES)
    ]


def topic_uses(settings: Settings) -> dict[str, Use]:
    """What each of the four topics is for, in their order."""
    uses = (Use.INPUT, Use.OUTCOMES, Use.OUTCOMES, Use.DEAD_LETTERS)
    return dict(zip(settings.topics.all, uses, strict=True))


async def _start(client: AIOKafkaAdminClient, servers: str, last_error: Mapping[str, str]) -> None:
    try:
        async with asyncio.timeout(LIMIT_SECONDS):
            await client.start()
    except (ValueError, OverflowError):  # a port that is none
        raise CommandError(
            f"{_KAFKA_VARIABLE} is not host:port[,host:port…]: {servers}", code="settings"
        ) from None
    except KAFKA_ERRORS as error:
        reason = last_error.get("reason") or reason_of(error)
        raise CommandError(
            f"cannot reach Kafka at {servers} ({reason})",
            f"start it or set {_KAFKA_VARIABLE}",
            code="kafka_unreachable",
        ) from None
    try:
        await of_some_node(client.describe_cluster)
    except KAFKA_ERRORS as error:
        # Bootstrapping worked, so the broker advertised an address, and we cannot reach that one.
        reason = last_error.get("reason") or reason_of(error)
        raise CommandError(
            f"Kafka answers at {servers}, but not at the address it advertises ({reason})",
            "check advertised.listeners of the brokers",
            code="kafka_unreachable",
        ) from None


async def of_some_node(ask: Callable[[], Awaitable[T]]) -> T:
    """The answer of the first broker that answers within the time limit.

    The client asks a broker at random, and a broker that has died stays on its list for some seconds.
    """
    async with asyncio.timeout(LIMIT_SECONDS):
        while True:
            with suppress(NodeNotReadyError):
                return await ask()
            await asyncio.sleep(_NEXT_NODE_SECONDS)


class _LastErrorHandler(logging.Handler):
    """Keeps the reason of the last error logged: aiokafka reports it in its log only."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said: dict[str, str] = {}

    def emit(self, record: logging.LogRecord) -> None:
        error = record.args[-1] if isinstance(record.args, tuple) and record.args else None
        if isinstance(error, BaseException):
            self.said["reason"] = reason_of(error)


@contextmanager
def quiet_aiokafka() -> Iterator[Mapping[str, str]]:
    """Suppress aiokafka's log; `reason` keeps its last error."""
    logger, handler = logging.getLogger("aiokafka"), _LastErrorHandler()
    propagated = logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield handler.said
    finally:
        logger.propagate = propagated
        logger.removeHandler(handler)
