"""Tells in one line what is wrong with PostgreSQL or Kafka, before a command starts to work.

No message ever holds a password: neither the URL nor a driver's error about the URL is printed.
"""

import asyncio
import logging
import os
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from socket import gaierror
from typing import Final, TypeVar
from urllib.parse import parse_qs, urlsplit

import asyncpg
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, KafkaTimeoutError, NodeNotReadyError, RequestTimedOutError
from alembic.script import ScriptDirectory
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from db import migrate
from db.engine import create_engine
from worker.errors import CommandError
from worker.kafka.limits.remarks import LETTER_HEADER_BYTES, Use, remarks
from worker.kafka.limits.topic_limits import SETTINGS, TopicLimits, parse_limits, settings_of
from worker.settings import Settings

T = TypeVar("T")

LIMIT_SECONDS: Final = 5.0
_NEXT_NODE_SECONDS: Final = 0.2
_TOPIC_TRIES: Final = 5
_TOPIC_PAUSE_SECONDS: Final = 0.3

_DATABASE_VARIABLE: Final = "ORDER_WORKER_DATABASE_URL"
_KAFKA_VARIABLE: Final = "ORDER_WORKER_KAFKA_BOOTSTRAP_SERVERS"
DATABASE_ERRORS: Final = (DBAPIError, asyncpg.PostgresError, asyncpg.InterfaceError)
"""what PostgreSQL refuses, or its driver; SQLAlchemy does not wrap all of them"""
KAFKA_ERRORS: Final = (KafkaError, OSError, TimeoutError)
"""what Kafka refuses, or the way to it: TLS as well, whose errors are OSErrors"""


@asynccontextmanager
async def database_engine(settings: Settings, application_name: str) -> AsyncIterator[AsyncEngine]:
    """An engine for one command, disposed of at its end. Connects to nothing yet."""
    engine = create_engine(
        settings.database_url.get_secret_value(),
        schema=settings.database_schema,
        application_name=application_name,
        pool_size=1,
    )
    try:
        yield engine
    finally:
        await engine.dispose()


@asynccontextmanager
async def kafka_admin(settings: Settings) -> AsyncIterator[AIOKafkaAdminClient]:
    """An admin client that has reached a broker, or a CommandError that says why it could not.

    What aiokafka logs on the way is not shown: the last of it becomes the reason.
    """
    servers = settings.kafka_bootstrap_servers
    with quiet_aiokafka() as last_words:
        try:
            client = AIOKafkaAdminClient(**settings.kafka_client_options(), retry_backoff_ms=200)
        except (OSError, ssl.SSLError) as error:
            raise CommandError(f"cannot read the TLS files for Kafka: {reason_of(error)}") from None
        try:
            await _start(client, servers, last_words)
            yield client
        finally:
            await client.close()


async def require_reachable_database(engine: AsyncEngine, settings: Settings) -> None:
    """PostgreSQL answers within 5 seconds and lets us in, or a CommandError says why not."""
    try:
        async with asyncio.timeout(LIMIT_SECONDS), engine.connect() as connection:
            await connection.execute(text("SELECT 1"))
    except (OSError, TimeoutError, ValueError, *DATABASE_ERRORS) as error:
        raise _database_error(settings, _driver_error(error)) from None


async def require_database(engine: AsyncEngine, settings: Settings) -> None:
    """As `require_reachable_database`, and the tables are those of this version."""
    await require_reachable_database(engine, settings)
    revision, head = await require_known_revision(engine, settings), migrate.head_revision()
    if revision == head:
        return
    schema = settings.database_schema
    found = "has no tables yet" if revision is None else f"is at revision {revision}, not {head}"
    raise CommandError(f'schema "{schema}" {found}: run `order-worker db upgrade`')


async def seconds_ahead_of_database(engine: AsyncEngine) -> float:
    """How far this machine's clock is ahead of PostgreSQL's, as well as a round trip tells."""
    async with engine.connect() as connection:
        asked = time.time()
        theirs = (await connection.execute(text("SELECT extract(epoch FROM clock_timestamp())"))).scalar_one()
    return (asked + time.time()) / 2 - float(theirs)


async def require_known_revision(engine: AsyncEngine, settings: Settings) -> str | None:
    """The revision of the tables (None: there are none), or a CommandError if we do not know it."""
    revision = await migrate.current_revision(engine)
    scripts = ScriptDirectory.from_config(migrate.config()).walk_revisions()
    if revision is None or revision in {script.revision for script in scripts}:
        return revision
    raise CommandError(
        f'schema "{settings.database_schema}" is at revision {revision}, which this version does not know:'
        " run the version that made it, or a newer one"
    )


async def require_topics(settings: Settings, *names: str) -> None:
    """The topics, without names all four, exist, or a CommandError names those that do not."""
    wanted = names or topic_names(settings)
    async with kafka_admin(settings) as client:
        for tries in range(_TOPIC_TRIES):
            # Just created, they need not be known to the broker that is asked.
            await asyncio.sleep(_TOPIC_PAUSE_SECONDS if tries else 0)
            present = set(await of_some_node(client.list_topics))
            missing = [name for name in wanted if name not in present]
            if not missing:
                return
    raise CommandError(
        f"Kafka at {settings.kafka_bootstrap_servers} lacks the topic{'s' * (len(missing) > 1)}"
        f" {', '.join(missing)}: run `order-worker topics create`"
    )


async def read_topic_limits(settings: Settings, topics: Iterable[str]) -> dict[str, TopicLimits]:
    """What each topic takes, by its settings; without those we may not read, or that are not there.

    May be called inside a worker, also beside itself. Raises KafkaError, OSError or TimeoutError.
    """
    client = AIOKafkaAdminClient(**settings.kafka_client_options())
    try:
        async with asyncio.timeout(LIMIT_SECONDS):
            await client.start()
        return await describe_limits(client, topics)
    finally:
        await client.close()


async def largest_record_bytes(settings: Settings, topic: str) -> int:
    """How large a batch of records the topic takes, or Kafka's default of 1 MiB where we may not read it."""
    async with kafka_admin(settings) as client:
        try:
            found = await describe_limits(client, [topic])
        except KAFKA_ERRORS as error:
            raise CommandError(f"cannot read the settings of topic {topic}: {reason_of(error)}") from error
    return found.get(topic, TopicLimits()).max_batch_bytes


async def describe_limits(client: AIOKafkaAdminClient, topics: Iterable[str]) -> dict[str, TopicLimits]:
    """As `read_topic_limits`, by a client that is there already."""
    asked = [ConfigResource(ConfigResourceType.TOPIC, topic, dict.fromkeys(SETTINGS)) for topic in topics]
    responses = await of_some_node(lambda: client.describe_configs(asked))
    return {topic: parse_limits(values) for topic, values in settings_of(responses).items()}


def topic_names(settings: Settings) -> tuple[str, str, str, str]:
    """The four topics: orders in, confirmed, rejected, dead letters."""
    return (
        settings.order_placed_topic,
        settings.order_confirmed_topic,
        settings.order_rejected_topic,
        settings.dead_letter_topic,
    )


async def topic_remarks(settings: Settings) -> list[str]:
    """What in the settings of the four topics will hurt, a line each; nothing where we may not read them."""
    uses = topic_uses(settings)
    try:
        found = await read_topic_limits(settings, uses)
    except KAFKA_ERRORS:
        return []  # what is wrong with Kafka, others tell
    placed = found.get(settings.order_placed_topic, TopicLimits())
    return [
        remark
        for topic, limits in found.items()
        for remark in remarks(topic, uses[topic], limits, placed.max_batch_bytes + LETTER_HEADER_BYTES)
    ]


def topic_uses(settings: Settings) -> dict[str, Use]:
    """What each of the four topics is for, in their order."""
    uses = (Use.INPUT, Use.OUTCOMES, Use.OUTCOMES, Use.DEAD_LETTERS)
    return dict(zip(topic_names(settings), uses, strict=True))


def database_address(url: str) -> str:
    """Host, port and database name of the URL for a message; never a user, a password or a parameter."""
    hidden = f"the address in {_DATABASE_VARIABLE}"
    try:
        parts = urlsplit(url)
    except ValueError:
        return hidden
    # An unescaped "/", "?" or "#" in a password ends the netloc early, which then holds a piece of it.
    if "@" not in parts.netloc and "@" in url:
        return hidden
    host = parts.netloc.rpartition("@")[2] or ",".join(parse_qs(parts.query).get("host", []))
    return f"{host or 'the local socket'}{parts.path}"


def _database_error(settings: Settings, error: BaseException) -> CommandError:
    if isinstance(error, (ValueError, asyncpg.ClientConfigurationError)):
        # The driver quotes what it could not read, which may be a piece of the password.
        return CommandError(
            f"{_DATABASE_VARIABLE} cannot be read: write postgresql://user:password@host:port/name"
            " and percent-encode special characters in the password"
        )
    address = database_address(settings.database_url.get_secret_value())
    if isinstance(error, asyncpg.PostgresError):
        return CommandError(
            f"PostgreSQL at {address} does not let us in ({reason_of(error)}): check {_DATABASE_VARIABLE}"
        )
    return CommandError(
        f"cannot reach PostgreSQL at {address} ({reason_of(error)}): start it or set {_DATABASE_VARIABLE}"
    )


def _driver_error(error: BaseException) -> BaseException:
    """asyncpg's own error, where SQLAlchemy wrapped it."""
    if isinstance(error, DBAPIError) and error.orig is not None:
        return error.orig.__cause__ or error.orig
    return error


async def _start(client: AIOKafkaAdminClient, servers: str, last_words: Mapping[str, str]) -> None:
    try:
        async with asyncio.timeout(LIMIT_SECONDS):
            await client.start()
    except ValueError:
        raise CommandError(f"{_KAFKA_VARIABLE} is not host:port[,host:port…]: {servers}") from None
    except KAFKA_ERRORS as error:
        reason = last_words.get("reason") or reason_of(error)
        raise CommandError(
            f"cannot reach Kafka at {servers} ({reason}): start it or set {_KAFKA_VARIABLE}"
        ) from None
    try:
        await of_some_node(client.describe_cluster)
    except KAFKA_ERRORS as error:
        # Bootstrapping worked, so the broker told us an address: it is that one we cannot reach.
        reason = last_words.get("reason") or reason_of(error)
        raise CommandError(
            f"Kafka answers at {servers}, but not at the address it advertises ({reason}):"
            " check advertised.listeners of the brokers"
        ) from None


async def of_some_node(ask: Callable[[], Awaitable[T]]) -> T:
    """The answer of whichever broker answers within the limit.

    The client asks one at random, and for some seconds after its death a broker is still on the list.
    """
    async with asyncio.timeout(LIMIT_SECONDS):
        while True:
            with suppress(NodeNotReadyError):
                return await ask()
            await asyncio.sleep(_NEXT_NODE_SECONDS)


class _LastWords(logging.Handler):
    """Keeps the reason of the last error logged: aiokafka tells it to nobody else."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said: dict[str, str] = {}

    def emit(self, record: logging.LogRecord) -> None:
        error = record.args[-1] if isinstance(record.args, tuple) and record.args else None
        if isinstance(error, BaseException):
            self.said["reason"] = reason_of(error)


@contextmanager
def quiet_aiokafka() -> Iterator[Mapping[str, str]]:
    """aiokafka logs nothing meanwhile; why it failed last is kept under `reason`."""
    logger, handler = logging.getLogger("aiokafka"), _LastWords()
    propagated = logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield handler.said
    finally:
        logger.propagate = propagated
        logger.removeHandler(handler)


def reason_of(error: BaseException) -> str:
    """A short text for people: the operating system's words, or the server's first line."""
    error = _driver_error(error)
    if isinstance(error, (TimeoutError, KafkaTimeoutError, RequestTimedOutError)):
        return "no answer in time"
    if isinstance(error, OSError) and error.errno and not isinstance(error, (ssl.SSLError, gaierror)):
        # asyncio puts the address in place of the reason.
        return os.strerror(error.errno).lower()
    if isinstance(error, gaierror):
        return str(error.strerror).lower()
    text_lines = str(error).strip().splitlines() or [type(error).__name__]
    return text_lines[0].removeprefix(f"{type(error).__name__}: ")
