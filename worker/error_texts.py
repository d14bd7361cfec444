"""An error in one line, for logs, messages and the operator's page: what happened, and what helps."""

import os
import re
import ssl
from collections.abc import Mapping
from socket import gaierror
from typing import Final

from aiokafka.errors import (
    GroupAuthorizationFailedError,
    InconsistentGroupProtocolError,
    InvalidProducerIdMapping,
    InvalidSessionTimeoutError,
    InvalidTransactionTimeout,
    KafkaError,
    KafkaTimeoutError,
    NoError,
    RequestTimedOutError,
    TopicAuthorizationFailedError,
    TransactionalIdAuthorizationFailed,
)
from sqlalchemy.exc import DBAPIError

# What the brokers refuse because of a setting: ours, theirs, or another member's.
_SETTINGS: Final[Mapping[type[BaseException], str]] = {
    InvalidTransactionTimeout: (
        "ORDER_WORKER_TRANSACTION_TIMEOUT_MS is above transaction.max.timeout.ms of the brokers"
    ),
    InconsistentGroupProtocolError: (
        "the group has a member with another partition.assignment.strategy, which is no worker: stop it, or"
        " give it a group id of its own (`order-worker lag` names it)"
    ),
    InvalidProducerIdMapping: (
        "Kafka has forgotten the id of this idle producer (transactional.id.expiration.ms of the brokers)"
    ),
    InvalidSessionTimeoutError: (
        "ORDER_WORKER_SESSION_TIMEOUT_MS is not from group.min.session.timeout.ms to"
        " group.max.session.timeout.ms of the brokers"
    ),
}

_ADDRESS: Final = re.compile(r"\('([^']*)', (\d+), [^)]*\)")  # as Python has it, in aiokafka's messages
# aiokafka wraps errors as Python writes them.
_REPR: Final = re.compile(
    r"^KafkaError: (?:Unexpected error during coordination )?(\w+)\((?:.*?(['\"])(.*)\2)?[^'\"]*\)$"
)
_TOPIC_RIGHTS: Final = "READ on the input topic, READ and WRITE on the others"
# What the brokers refuse for want of a right, which may be withdrawn at any time.
_RIGHTS: Final[Mapping[type[BaseException], str]] = {
    TopicAuthorizationFailedError: _TOPIC_RIGHTS,
    NoError: _TOPIC_RIGHTS,  # so aiokafka's admin client calls the refusal to name a topic's offsets
    GroupAuthorizationFailedError: "READ on the group",
    TransactionalIdAuthorizationFailed: "WRITE on transactional ids that begin with the name of the group",
}

_NO_ANSWER: Final = "no answer in time"
_INSUFFICIENT_PRIVILEGE: Final = "42501"
_MORE_RIGHTS: Final = (
    "grant the role its rights, as deploy/postgres/roles.sql does; BYPASSRLS against row-level security"
)

# With the code of what a single order may exceed, such as the size of an index row. By the function that
# refuses it: to everybody, until old rows are vacuumed.
_OUT_OF_TRANSACTIONS: Final = frozenset({"GetNewTransactionId", "GetNewMultiXactId"})


def describe(error: BaseException) -> str:
    """One line with PostgreSQL's or Kafka's own message, without SQL and parameters.

    If the server refuses one of our settings: with the setting's name. If Kafka lacks a right: with what to
    grant.
    """
    error = _unwrapped(error)
    if type(error) in _SETTINGS:
        return _SETTINGS[type(error)]
    if type(error) in _RIGHTS:
        return f"{error}: grant the worker's user {_RIGHTS[type(error)]}, as deploy/kafka/acls.sh does"
    inner = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    text = str(inner).strip().partition("\n")[0] or _without_words(inner)
    text = _ADDRESS.sub(r"\1:\2", _without_repr(text)).split(">: ", 1)[-1]
    if needs_vacuum(error):
        return f"{text}: VACUUM that database"
    return f"{text}: {_MORE_RIGHTS}" if sqlstate(error) == _INSUFFICIENT_PRIVILEGE else text


def reason_of(error: BaseException) -> str:
    """A short text: the operating system's message, or the first line of the server's."""
    error = _unwrapped(driver_error(error))
    if type(error) in _SETTINGS:
        return _SETTINGS[type(error)]
    if isinstance(error, (TimeoutError, KafkaTimeoutError, RequestTimedOutError)):
        return _NO_ANSWER
    if isinstance(error, OSError) and error.errno and not isinstance(error, (ssl.SSLError, gaierror)):
        # asyncio puts the address in place of the reason.
        return os.strerror(error.errno).lower()
    if isinstance(error, gaierror):
        return str(error.strerror).lower()
    text_lines = str(error).strip().splitlines() or [type(error).__name__]
    return _without_repr(text_lines[0]).removeprefix(f"{type(error).__name__}: ")


def sqlstate(error: BaseException) -> str | None:
    """PostgreSQL's code of an error, raw (from COPY) or wrapped by SQLAlchemy."""
    inner = error.orig if isinstance(error, DBAPIError) else error
    return getattr(inner, "sqlstate", None)


def driver_error(error: BaseException) -> BaseException:
    """asyncpg's own error, where SQLAlchemy wrapped it."""
    if isinstance(error, DBAPIError) and error.orig is not None:
        return error.orig.__cause__ or error.orig
    return error


def needs_vacuum(error: BaseException) -> bool:
    """Whether PostgreSQL begins no transaction, so that it need not use the number of an old one again."""
    return getattr(driver_error(error), "server_source_function", None) in _OUT_OF_TRANSACTIONS


def _unwrapped(error: BaseException) -> BaseException:
    """The error that aiokafka wrapped in one without a type of its own."""
    while type(error) is KafkaError and error.__cause__ is not None:
        error = error.__cause__
    return error


def _without_words(error: BaseException) -> str:
    return _NO_ANSWER if isinstance(error, TimeoutError) else type(error).__name__


def _without_repr(text: str) -> str:
    """The name and the text of the error that aiokafka wrapped."""
    return _REPR.sub(lambda match: ": ".join(filter(None, match.group(1, 3))), text)
