"""What to do about a failed batch. Decides only; `batch` and `consumer` of `worker.pipeline` act on it."""

import random
from collections.abc import Collection, Mapping
from enum import Enum, auto
from typing import Final

import asyncpg
from aiokafka import TopicPartition
from aiokafka.errors import (
    KafkaError,
)
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from db.bulk.rows import RowsNotWrittenError
from db.database_url import InvalidUrlError
from db.errors import UnusableProductError
from worker.error_texts import describe, driver_error, needs_vacuum, reason_of, sqlstate
from worker.errors import RefusedCredentialsError

DATABASE_ERRORS: Final = (DBAPIError, asyncpg.PostgresError, asyncpg.InterfaceError)
"""errors of PostgreSQL or its driver; SQLAlchemy does not wrap all of them"""


class StaleReadError(Exception):
    """Data that a decision was based on changed before it was written: nothing was committed."""


class OverTotalError(Exception):
    """The totals of orders that would be confirmed exceed the limit of an order: nothing was written.

    `total_cents`: by the order's key.
    """

    def __init__(self, total_cents: Mapping[str, int]) -> None:
        super().__init__(f"{len(total_cents)} orders come to more than an order may")
        self.total_cents = total_cents


class RefusedOrderError(Exception):
    """PostgreSQL refuses this order, and nothing shows that it would take others: its partition waits."""

    def __init__(self, order_id: str, partition: TopicPartition, offset: int, failure: Exception) -> None:
        super().__init__(
            f"order {order_id} ({partition.topic}-{partition.partition}@{offset}) is refused:"
            f" {describe(failure)}; if every order is, repair the tables; else it becomes a dead letter once"
            " other orders are confirmed"
        )
        self.partition = partition


class ManyRefusedError(Exception):
    """PostgreSQL refuses many orders of a batch: the records from this one on are left to a later batch."""

    def __init__(self, partition: TopicPartition, offset: int) -> None:
        super().__init__(f"many orders before {partition.topic}-{partition.partition}@{offset} are refused")
        self.partition = partition
        self.offset = offset


class LockedRowsError(Exception):
    """Another session keeps rows locked that orders of these partitions need: they wait."""

    def __init__(self, rows: str, partitions: Collection[TopicPartition]) -> None:
        super().__init__(
            f"another session keeps {rows} locked, which orders need: end its transaction (pg_stat_activity)"
        )
        self.partitions = partitions


_OF_SOME_ORDERS: Final = (OverTotalError, UnusableProductError, RowsNotWrittenError)


class WaitsForOperatorError(Exception):
    """The partition waits until an operator has repaired what the message names."""


class Remedy(Enum):
    """What helps against an error of the database part of a batch."""

    RERUN = auto()  # somebody changed what was read: again at once, for a few times; then wait
    RERUN_THEN_SPLIT = auto()  # as RERUN, but if it stays, one order of the batch is the cause
    SPLIT = auto()  # one order of the batch is the cause: find it by halving
    WAIT = auto()  # a server is away or overloaded: back off and try again, without end


_RERUN: Final = frozenset({"40001", "40P01"})  # serialization failure, deadlock
_INTEGRITY_CLASS: Final = "23"  # gone or decided meanwhile; on a sharded cluster it comes as XX000
_DUPLICATE_KEY: Final = "23505"
_INTERNAL: Final = "XX000"
_LOGIN_CLASS: Final = "28"
_STATEMENT_CLASS: Final = "42"  # syntax error or access rule violation
# Errors of the connection, the session, the server or its disks, by the appendix "PostgreSQL Error Codes". An
# error of another class may be caused by one order: by its data, or by a trigger of the shop. A trigger
# raises P0001 or a code of its own, or fails in a branch that few orders reach (42703).
_SERVER_CLASSES: Final = frozenset(
    {"08", "0A", "25", "26", "28", "3D", "3F", "40", "53", "55", "57", "58", "F0", "XX"}
)


def remedy(error: BaseException) -> Remedy:
    """The remedy for an error of a batch's transaction. On an unknown error we wait: no order is lost."""
    if isinstance(error, StaleReadError):
        return Remedy.RERUN_THEN_SPLIT
    if isinstance(error, _OF_SOME_ORDERS):
        return Remedy.SPLIT
    state = sqlstate(error)
    if state is None:
        return Remedy.WAIT
    if state in _RERUN:
        return Remedy.RERUN
    if state[:2] == _INTEGRITY_CLASS or state == _INTERNAL:
        return Remedy.RERUN_THEN_SPLIT
    is_of_server = state[:2] in _SERVER_CLASSES or needs_vacuum(error)
    if not is_of_server and not _is_of_our_statement(error):
        return Remedy.SPLIT
    return Remedy.WAIT


def _is_of_our_statement(error: BaseException) -> bool:
    """Whether a table, a column or a right is missing for our own statement, whatever the order is.

    Where a trigger misses it, which may do so for few orders, PostgreSQL names the function as the context.
    """
    return (sqlstate(error) or "").startswith(_STATEMENT_CLASS) and not getattr(
        driver_error(error), "context", None
    )


def may_concern_all(error: BaseException) -> bool:
    """Whether an error of a single order may have another cause than that order.

    Somebody who altered a table, or gave it a trigger, may have made it refuse every order.
    """
    return not isinstance(error, OverTotalError)


def is_duplicate_key(error: BaseException) -> bool:
    """Whether a row with this key exists already."""
    return sqlstate(error) == _DUPLICATE_KEY


def is_refused_login(error: BaseException) -> bool:
    """Whether PostgreSQL refuses our credentials, or knows no such user."""
    return (sqlstate(error) or "").startswith(_LOGIN_CLASS)


def is_outage(error: BaseException) -> bool:
    """Whether a server is away or refuses work; False: an unforeseen error of the worker itself."""
    return is_of_database(error) or isinstance(
        error,
        OSError
        | TimeoutError
        | KafkaError
        | StaleReadError
        | UnusableProductError
        | RowsNotWrittenError
        | RefusedOrderError
        | LockedRowsError
        | RefusedCredentialsError,
    )


def is_of_database(error: BaseException) -> bool:
    """Whether the error certainly comes from PostgreSQL or the connection to it."""
    return isinstance(
        error,
        DBAPIError
        | PoolTimeoutError
        | asyncpg.PostgresError
        | asyncpg.InterfaceError
        # Of a file that is renewed, perhaps half written.
        | InvalidUrlError,
    )


def backoff_seconds(attempt: int, longest_seconds: float) -> float:
    """A jittered, doubling pause: attempt 0 about 0.1 s, never more than `longest_seconds`.

    The jitter (half to whole) keeps workers that failed together from retrying together.
    """
    pause = min(longest_seconds, 0.1 * 2.0 ** min(attempt, 20))
    return pause * random.uniform(0.5, 1.0)


def outage_text(error: BaseException) -> str | None:
    """Which server went away or refused, if that explains the error; None: an unforeseen error."""
    if isinstance(error, BaseExceptionGroup):
        texts = [outage_text(one) for one in error.exceptions]
        return texts[0] if all(texts) else None
    if not is_outage(error):
        return None
    reason = reason_of(error)
    if is_of_database(error):
        return f"PostgreSQL ended it: {reason}"
    if isinstance(error, KafkaError):
        return f"Kafka ended it: {reason}"
    named = isinstance(error, OSError) and error.filename
    return f"{error.filename}: {reason}" if named else reason  # type: ignore[attr-defined]
