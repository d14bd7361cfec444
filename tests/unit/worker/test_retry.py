import asyncpg
import pytest
from aiokafka.errors import (
    InconsistentGroupProtocolError,
    InvalidProducerIdMapping,
    InvalidSessionTimeoutError,
    InvalidTransactionTimeout,
    KafkaConnectionError,
    KafkaError,
    NoBrokersAvailable,
    NodeNotReadyError,
    for_code,
)
from sqlalchemy.exc import DBAPIError

from worker.error_texts import describe, reason_of
from worker.failures import Remedy, StaleReadError, backoff_seconds, is_outage, outage_text, remedy
from worker.kafka.consuming.membership import GroupMaxSizeReachedError


def postgres_error(sqlstate: str) -> asyncpg.PostgresError:
    error = asyncpg.PostgresError("said by PostgreSQL")
    setattr(error, "sqlstate", sqlstate)  # noqa: B010 (asyncpg's classes have it for all of theirs)
    return error


@pytest.mark.parametrize(
    ("sqlstate", "expected"),
    [
        ("22003", Remedy.SPLIT),  # numeric out of range
        ("22021", Remedy.SPLIT),  # a character PostgreSQL does not take
        ("23505", Remedy.RERUN_THEN_SPLIT),  # decided meanwhile
        ("23503", Remedy.RERUN_THEN_SPLIT),  # a row vanished between read and write
        ("XX000", Remedy.RERUN_THEN_SPLIT),  # how a sharded cluster reports either
        ("40001", Remedy.RERUN),
        ("40P01", Remedy.RERUN),
        ("55P03", Remedy.WAIT),  # lock timeout
        ("57P01", Remedy.WAIT),  # admin shutdown
        ("53100", Remedy.WAIT),  # disk full
        ("25006", Remedy.WAIT),  # read only, after a failover
        ("0A000", Remedy.WAIT),  # a cached plan, after a table was altered
        ("XX001", Remedy.WAIT),  # data corrupted
        ("42P01", Remedy.WAIT),  # a table of the worker's is missing
        # These wait as well, where no other order of the batch would be confirmed.
        ("54000", Remedy.SPLIT),  # a row too long for an index of the shop
        ("P0001", Remedy.SPLIT),  # what a trigger raises by default
        ("45000", Remedy.SPLIT),  # a code that the shop has made up
    ],
)
def test_each_kind_of_database_error_has_its_remedy(sqlstate: str, expected: Remedy):
    assert remedy(postgres_error(sqlstate)) is expected
    assert remedy(DBAPIError("SELECT 1", None, postgres_error(sqlstate))) is expected


def test_a_database_that_needs_a_vacuum_before_it_takes_writes_is_waited_for():
    """It was said of an order, which was suspected to be the only one that is refused."""
    error = postgres_error("54000")
    error.server_source_function = "GetNewTransactionId"
    for raised in (error, DBAPIError("SELECT 1", None, error)):
        assert remedy(raised) is Remedy.WAIT
        assert describe(raised) == "said by PostgreSQL: VACUUM that database"


def test_a_right_that_is_withdrawn_is_described_with_what_to_grant():
    """And a policy that somebody adds, which has the same code."""
    for raised in (postgres_error("42501"), DBAPIError("SELECT 1", None, postgres_error("42501"))):
        assert describe(raised).startswith("said by PostgreSQL: grant the role its rights")


def test_a_table_that_a_trigger_misses_may_be_missed_for_one_order_only():
    error = postgres_error("42P01")
    error.context = "PL/pgSQL function own() line 1 at IF"
    assert remedy(error) is Remedy.SPLIT


@pytest.mark.parametrize(
    "error", [ConnectionRefusedError(), TimeoutError(), asyncpg.InterfaceError("closed")]
)
def test_a_server_that_is_away_is_waited_for(error: Exception):
    assert remedy(error) is Remedy.WAIT
    assert is_outage(error)


def test_a_stale_read_runs_again():
    assert remedy(StaleReadError()) is Remedy.RERUN_THEN_SPLIT


def test_a_fault_of_ours_waits_and_is_not_taken_for_an_outage():
    assert remedy(KeyError("x")) is Remedy.WAIT
    assert not is_outage(KeyError("x"))
    assert is_outage(KafkaConnectionError())


def test_the_pause_grows_and_stays_below_its_limit():
    assert 0.05 <= backoff_seconds(0, 15) <= 0.1
    assert 1.6 <= backoff_seconds(5, 15) <= 3.2
    assert all(7.5 <= backoff_seconds(10_000, 15) <= 15 for _ in range(100))


def test_an_error_is_reported_in_one_line_without_the_statement():
    error = DBAPIError("SELECT secret", ("parameter",), postgres_error("42P01"))
    assert describe(error) == "said by PostgreSQL"
    assert describe(TimeoutError()) == "no answer in time"
    away = KafkaConnectionError("Unable to bootstrap from [('::1', 9092, <AddressFamily.AF_INET6: 10>)]")
    assert describe(away) == "KafkaConnectionError: Unable to bootstrap from [::1:9092]"


TOO_MANY_MEMBERS = (
    "GroupMaxSizeReachedError: the group has as many members as group.max.size of the brokers allows"
)


def wrapped(error: Exception, **cause: Exception) -> KafkaError:
    """As aiokafka's sender (with the cause) and its coordinator do."""
    wrapper = KafkaError(repr(error))
    wrapper.__cause__ = cause.get("cause")
    return wrapper


@pytest.mark.parametrize(
    ("error", "said", "reason"),
    [
        (
            wrapped(KafkaConnectionError("broker:9092 closed")),
            "KafkaConnectionError: broker:9092 closed",
            "KafkaConnectionError: broker:9092 closed",
        ),
        (wrapped(NoBrokersAvailable()), "NoBrokersAvailable", "NoBrokersAvailable"),
        (
            KafkaError(f"Unexpected error during coordination {NodeNotReadyError('it is not')!r}"),
            "NodeNotReadyError: it is not",
            "NodeNotReadyError: it is not",
        ),
        (wrapped(OSError(), cause=KafkaConnectionError("x")), "KafkaConnectionError: x", "x"),
        (wrapped(TimeoutError(), cause=TimeoutError()), "no answer in time", "no answer in time"),
        (wrapped(for_code(GroupMaxSizeReachedError.errno)()), TOO_MANY_MEMBERS, TOO_MANY_MEMBERS),
    ],
)
def test_what_aiokafka_wraps_is_reported_without_its_wrapper(error: KafkaError, said: str, reason: str):
    assert (describe(error), reason_of(error)) == (said, reason)


@pytest.mark.parametrize(
    ("error", "ours", "theirs"),
    [
        (InvalidTransactionTimeout(), "ORDER_WORKER_TRANSACTION_TIMEOUT_MS", "transaction.max.timeout.ms"),
        (InvalidSessionTimeoutError(), "ORDER_WORKER_SESSION_TIMEOUT_MS", "group.max.session.timeout.ms"),
        (InconsistentGroupProtocolError(), "order-worker lag", "partition.assignment.strategy"),
        (InvalidProducerIdMapping(), "idle producer", "transactional.id.expiration.ms"),
    ],
    ids=["transaction", "session", "strategy", "idle"],
)
def test_what_the_brokers_refuse_for_our_setting_is_reported_with_its_name(
    error: Exception, ours: str, theirs: str
):
    for said in (describe(error), reason_of(error), outage_text(error) or ""):
        assert ours in said
        assert theirs in said
