"""What Kafka refuses when we publish, and what helps: one table. Pure.

KafkaError
└── RefusedByKafkaError    names what is refused, by which setting of which topic, and what to do
    └── AdaptedError       the same, and the next attempt is made so that it need not be refused again
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from aiokafka import errors
from aiokafka.errors import (
    BrokerResponseError,
    ClusterAuthorizationFailedError,
    CorruptRecordException,
    InvalidProducerEpoch,
    InvalidTimestampError,
    InvalidTopicError,
    KafkaError,
    MessageSizeTooLargeError,
    PolicyViolationError,
    ProducerFenced,
    RecordListTooLargeError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
)


class InvalidRecordError(BrokerResponseError):  # type: ignore[misc]
    """The broker refuses a record for what it is."""

    errno = 87
    message = "INVALID_RECORD"
    description = "The broker refuses a record for what it is: one without key in a compacted topic, say."


# aiokafka 0.14 does not know the code and would make "unknown error" of it.
errors.kafka_errors.setdefault(InvalidRecordError.errno, InvalidRecordError)


class RefusalRemedy(Enum):
    """What helps against an error of Kafka's while we publish."""

    SMALLER_BATCHES = auto()  # the batch is larger than the topic takes, not yet known which record is
    ALONE = auto()  # one record of the batch is refused: find it by halving
    CUT = auto()  # a dead letter: cut its value, then its headers, then all but where it came from
    OWN_TIME = auto()  # the time of publishing in place of the record's
    MADE_UP_KEY = auto()  # a dead letter without key for a compacted topic: a key from its source
    SET_ASIDE = auto()  # an outcome stays refused: it waits by itself, and those behind it go on
    NAMED = (
        auto()
    )  # stays refused until somebody changes the topic or a right: the partition waits, and says so
    FENCED = auto()  # another worker has the partition
    WAIT = auto()  # an outage: back off and try again, without end


@dataclass(frozen=True, slots=True)
class Attempt:
    """What a remedy depends on, of the batch that was refused: one topic's, of so many `records`.

    `own_time`: stamped with the time of publishing. `keyed`: each has a key. `is_minimal`: a letter of which
    nothing more can be cut.
    """

    is_letter: bool
    records: int
    own_time: bool = False
    keyed: bool = True
    is_minimal: bool = False


_SIZE: Final = (MessageSizeTooLargeError, RecordListTooLargeError)
_TIME: Final = (InvalidTimestampError,)
_RECORD: Final = (InvalidRecordError, PolicyViolationError)
_MAYBE_KEY: Final = (CorruptRecordException,)  # what older brokers say of a missing key, too
_FORBIDDEN: Final = (
    TopicAuthorizationFailedError,
    ClusterAuthorizationFailedError,
    UnknownTopicOrPartitionError,
    InvalidTopicError,
)
_FENCED: Final = (ProducerFenced, InvalidProducerEpoch)

_Row = tuple[tuple[type[KafkaError], ...], Callable[[Attempt], bool], RefusalRemedy]
# The first row that applies. What is in none is an outage: waiting never costs an order.
_ROWS: Final[tuple[_Row, ...]] = (
    (_SIZE, lambda a: a.records > 1, RefusalRemedy.SMALLER_BATCHES),
    (_SIZE, lambda a: a.is_letter and not a.is_minimal, RefusalRemedy.CUT),
    (_SIZE, lambda a: not a.is_letter, RefusalRemedy.SET_ASIDE),
    (_SIZE, lambda a: True, RefusalRemedy.NAMED),
    (_TIME, lambda a: not a.own_time, RefusalRemedy.OWN_TIME),
    (_TIME, lambda a: True, RefusalRemedy.NAMED),
    (_RECORD + _MAYBE_KEY, lambda a: a.is_letter and not a.keyed, RefusalRemedy.MADE_UP_KEY),
    (_RECORD, lambda a: a.records > 1, RefusalRemedy.ALONE),
    (_RECORD, lambda a: not a.is_letter, RefusalRemedy.SET_ASIDE),
    (_RECORD, lambda a: True, RefusalRemedy.NAMED),
    (_FORBIDDEN, lambda a: True, RefusalRemedy.NAMED),
    (_FENCED, lambda a: True, RefusalRemedy.FENCED),
)


def remedy(error: BaseException, attempt: Attempt) -> RefusalRemedy:
    """The remedy for what Kafka said of a batch that was sent."""
    for kinds, applies, what in _ROWS:
        if isinstance(error, kinds) and applies(attempt):
            return what
    return RefusalRemedy.WAIT


class RefusedByKafkaError(KafkaError):  # type: ignore[misc]
    """What is refused, where it came from, why, and what to do: a line for a person.

    `topic` is the one that refuses, `setting` the broker's or topic's that makes it, or the right that is
    missing. `place` (TOPIC-PARTITION@OFFSET) and `order_id` are None where everything is refused.
    """

    def __init__(
        self,
        topic: str,
        reason: str,
        *,
        setting: str,
        what_to_do: str,
        place: str | None = None,
        order_id: str | None = None,
    ) -> None:
        self.topic, self.reason, self.setting, self.what_to_do = topic, reason, setting, what_to_do
        self.place, self.order_id = place, order_id
        what = " of ".join(part for part in (f"order {order_id}" if order_id else "", place or "") if part)
        super().__init__(f"{topic} refuses {what or 'what is published'} ({reason}): {what_to_do}")

    def __str__(self) -> str:
        return str(self.args[0])


class AdaptedError(RefusedByKafkaError):
    """Refused as it was, and adapted: what is tried next, at once, is sent otherwise."""


def name_of(error: BaseException) -> str:
    """Kafka's own name of an error."""
    if isinstance(error, MessageSizeTooLargeError):
        return "MESSAGE_TOO_LARGE"  # aiokafka has a name of its own
    return str(getattr(error, "message", "") or type(error).__name__)
