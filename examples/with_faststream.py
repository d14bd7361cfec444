"""Users from Kafka: each record of the topic `user-registered` becomes a user, once.

    order-worker db upgrade               # the tables
    python examples/with_faststream.py    # until Ctrl-C

Kafka and database come from ORDER_WORKER_KAFKA_BOOTSTRAP_SERVERS and ORDER_WORKER_DATABASE_URL. A record is
{"email": "ada@example.com", "full_name": "Ada Lovelace"}.

This is the plain way: one record, one transaction, one acknowledgement. Where more is asked, `worker` is the
example: batches, dead letters, headers that are passed on, and answers that are published exactly once.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import replace
from types import TracebackType
from typing import Annotated, Final, TypeAlias

from aiokafka import ConsumerRecord
from faststream import AckPolicy, BaseMiddleware, Depends, ExceptionMiddleware, FastStream
from faststream.kafka import KafkaBroker
from faststream.kafka.annotations import KafkaMessage, Logger
from pydantic import BaseModel, ValidationError
from sqlalchemy.ext.asyncio import AsyncSession

from db import catalog
from db.engine import create_engine, get_session, session_factory
from db.errors import AlreadyExistsError, InvalidValueError

# A record that failed comes again at once: without a pause some 800 times a second (measured).
RETRY_PAUSE_SECONDS: Final = 1.0

Parse: TypeAlias = Callable[[ConsumerRecord], Awaitable[KafkaMessage]]


class UserRegistered(BaseModel):
    email: str
    full_name: str


def create_app(
    bootstrap_servers: str,
    database_url: str,
    *,
    topic: str = "user-registered",
    group_id: str = "user-registration",
) -> FastStream:
    """The application. Connects to nothing before its start, and to nothing after its end."""
    engine = create_engine(database_url, application_name="shop-with-faststream")
    sessions = session_factory(engine)
    skipping = ExceptionMiddleware({ValidationError: skip_message, InvalidValueError: skip_message})
    # From the outermost to the innermost: what is skipped is no error for the pause any more.
    broker = KafkaBroker(bootstrap_servers, middlewares=[PauseAfterError, skipping])

    @broker.subscriber(
        topic,
        group_id=group_id,
        parser=parse_without_headers,
        decoder=decode,
        # Acknowledged when the session has committed; after an error sought back to, so that it comes again.
        # FastStream's default is to acknowledge on receipt, and then any error loses the record.
        ack_policy=AckPolicy.NACK_ON_ERROR,
        # Kafka's default is the end of the topic, and a new group would miss who registered before it.
        auto_offset_reset="earliest",
    )
    async def handle_user_registered(
        event: UserRegistered,
        session: Annotated[AsyncSession, Depends(get_session(sessions))],
        logger: Logger,
    ) -> None:
        try:
            user = await catalog.create_user(session, event.email, event.full_name)
        except AlreadyExistsError:
            # The record came twice, as after a crash between commit and acknowledgement it always does. The
            # refused write leaves the transaction usable: what a longer handler wrote before would be kept.
            logger.info("%s is a user already", event.email)
        else:
            logger.info("%s is user %d", event.email, user.id)

    return FastStream(broker, after_shutdown=[engine.dispose])


async def parse_without_headers(record: ConsumerRecord, parse: Parse) -> KafkaMessage:
    """Leave out headers, which this handler does not read.

    FastStream loses a record that has one which is null or not UTF-8, and answers to the topic of `reply_to`.
    """
    return await parse(replace(record, headers=()))


async def decode(message: KafkaMessage) -> UserRegistered:
    """Whatever the value is, it is a UserRegistered or a ValidationError, and no content type matters."""
    return UserRegistered.model_validate_json(message.body)


async def skip_message(error: Exception, message: KafkaMessage, logger: Logger) -> None:
    """Acknowledge a record that no retry makes a user of, or it would stop all that are behind it."""
    logger.error("skipped %s: %s", message.message_id, error)


class PauseAfterError(BaseMiddleware):
    """Gives a server that is away time to come back, before the record is sought back to."""

    async def after_processed(
        self,
        exc_type: type[BaseException] | None = None,
        exc_val: BaseException | None = None,
        exc_tb: TracebackType | None = None,
    ) -> bool:
        if isinstance(exc_val, Exception):
            await asyncio.sleep(RETRY_PAUSE_SECONDS)
        return False  # the error continues to FastStream


if __name__ == "__main__":
    app = create_app(
        os.environ.get("ORDER_WORKER_KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:9092"),
        os.environ.get("ORDER_WORKER_DATABASE_URL", "postgresql://postgres@127.0.0.1/postgres"),
    )
    asyncio.run(app.run())
