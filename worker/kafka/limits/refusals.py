"""The remedy for each refusal of Kafka's when we publish, in one table. Pure.

KafkaError
└── RefusedByKafkaError    names what is refused, by which setting of which topic, and what to do
    └── AdaptedError       the same, and the next attempt is adapted so that Kafka should accept it
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
    """The broker refuses a record because of its content."""

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
    SET_ASIDE = auto()  # an outcome stays refused: it is withheld, and those after it continue
    NAMED = (
        auto()
    )  # stays refused until somebody changes the topic or a right: the partition waits, and says so
    FENCED = auto()  # another worker has the partition
    WAIT = auto()  # an outage: back off and try again, without end


@dataclass(frozen=True, slots=True)
class Attempt:
    """What the remedy depends on: a refused batch of one topic, with so many `records`.

    `own_time`: stamped with the time of publishing. `keyed`: each has a key. `is_minimal`: a dead letter that
    cannot be cut further.
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
# The first row that applies. An error in no row is an outage: waiting never costs an order.
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
    """The remedy for Kafka's answer to a batch."""
    for kinds, applies, what in _ROWS:
        if isinstance(error, kinds) and applies(attempt):
            return what
    return RefusalRemedy.WAIT


class RefusedByKafkaError(KafkaError):  # type: ignore[misc]
    """What is refused, where it came from, why, and what to do, in one line.

    `topic` refuses; `setting` is the setting of the broker or topic that causes it, or the missing right.
    `place` (TOPIC-PARTITION@OFFSET) and `order_id` are None if everything is refused.
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
    """Refused, and adapted: the next attempt follows at once, and sends it differently."""


def name_of(error: BaseException) -> str:
    """Kafka's own name of an error."""
    if isinstance(error, MessageSizeTooLargeError):
        return "MESSAGE_TOO_LARGE"  # aiokafka has a name of its own
    return str(getattr(error, "message", "") or type(error).__name__)
