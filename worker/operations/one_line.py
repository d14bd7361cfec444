"""Turns server errors of a command that moves a group into one line."""

from collections.abc import Iterator
from contextlib import contextmanager

from worker.error_texts import reason_of
from worker.errors import CommandError
from worker.failures import DATABASE_ERRORS
from worker.kafka.clients import KAFKA_ERRORS


@contextmanager
def in_one_line() -> Iterator[None]:
    """Whatever fails in the block can be done again."""
    try:
        yield
    except DATABASE_ERRORS as error:
        raise CommandError(f"PostgreSQL ended it: {reason_of(error)}; run it again") from error
    except KAFKA_ERRORS as error:
        raise CommandError(f"Kafka ended it: {reason_of(error)}; run it again") from error
