"""The transactional producer of a command. Starting it fences every other run of the same command."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from aiokafka import AIOKafkaProducer
from aiokafka.errors import InvalidProducerEpoch, InvalidTxnState, KafkaError, ProducerFenced

from worker.error_texts import reason_of
from worker.errors import CommandError
from worker.kafka.clients import KAFKA_ERRORS, quiet_aiokafka
from worker.kafka.limits.adapted import MAX_REQUEST_BYTES
from worker.kafka.producing.producers import RETRY_BACKOFF_MS, close_producer
from worker.settings import Settings

_FENCED: Final = (ProducerFenced, InvalidProducerEpoch, InvalidTxnState)


def is_fenced(error: BaseException) -> bool:
    """Whether a newer producer of this name has fenced ours. aiokafka may wrap that error in another one."""
    return isinstance(error, _FENCED) or isinstance(error.__cause__, _FENCED)


@asynccontextmanager
async def exclusive_producer(
    settings: Settings,
    transactional_id: str,
    transaction_timeout_ms: int,
    *,
    max_request_size: int = MAX_REQUEST_BYTES,
    **options: Any,
) -> AsyncIterator[AIOKafkaProducer]:
    """A started producer: all transactions of an earlier one have ended, and that one can commit no more.

    Raises CommandError if Kafka refuses.
    """
    asyncio.get_running_loop().set_exception_handler(_but_kafka_errors)
    with quiet_aiokafka() as last_error:
        producer = AIOKafkaProducer(
            **settings.kafka_client_options(),
            transactional_id=transactional_id,
            transaction_timeout_ms=transaction_timeout_ms,
            retry_backoff_ms=RETRY_BACKOFF_MS,
            max_request_size=max_request_size,
            acks="all",
            **options,
        )
        try:
            try:
                async with asyncio.timeout(transaction_timeout_ms / 1_000):
                    await producer.start()
            except KAFKA_ERRORS as error:
                why = last_error.get("reason") or reason_of(error)
                raise CommandError(f"Kafka does not let us publish: {why}; nothing was sent") from error
            yield producer
        finally:
            await close_producer(producer)


def _but_kafka_errors(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Drop the errors of futures that aiokafka abandons when its sender fails; we have the error already."""
    if not isinstance(context.get("exception"), KafkaError):
        loop.default_exception_handler(context)
