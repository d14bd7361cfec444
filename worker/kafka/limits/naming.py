"""Messages about refusals: what Kafka refuses, because of which setting or right, and what to do. Pure."""

from collections.abc import Sequence
from typing import Final

from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    InvalidTimestampError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
)

from db.worker.withheld import Withheld
from worker.kafka.limits.refusals import AdaptedError, RefusalRemedy, RefusedByKafkaError, name_of
from worker.kafka.limits.topic_limits import TopicLimits

_MOST_NAMED: Final = 3  # withheld outcomes, in one line
_ADAPTED: Final = {
    RefusalRemedy.SMALLER_BATCHES: "it is sent in smaller batches",
    RefusalRemedy.ALONE: "it is sent in smaller batches, to find the record",
    RefusalRemedy.CUT: "the dead letter is cut further",
    RefusalRemedy.OWN_TIME: "it is sent with the time of publishing",
    RefusalRemedy.SET_ASIDE: "it is set aside, and the orders after it are processed",
    RefusalRemedy.MADE_UP_KEY: "dead letters without key get one",
}


def adapting(error: BaseException, topic: str, remedy: RefusalRemedy) -> AdaptedError:
    """The error for a refusal after which the next attempt sends something else."""
    return AdaptedError(topic, name_of(error), setting="", what_to_do=_ADAPTED[remedy])


def now_set_aside(refused: RefusedByKafkaError) -> AdaptedError:
    """The error for an outcome that was just set aside; the next attempt goes without it."""
    return AdaptedError(
        refused.topic, refused.reason, setting="", what_to_do=_ADAPTED[RefusalRemedy.SET_ASIDE]
    )


def raised(topic: str) -> AdaptedError:
    """The error for a refusal by a limit that was raised since; the next attempt may succeed."""
    return AdaptedError(topic, "MESSAGE_TOO_LARGE", setting="", what_to_do="its limit was raised meanwhile")


def refused(
    error: BaseException,
    topic: str,
    limits: TopicLimits,
    *,
    size: int = 0,
    place: str | None = None,
    order_id: str | None = None,
) -> RefusedByKafkaError:
    """The error for a refusal that stays. `size`: bytes of what was refused, as a batch of its own."""
    reason, setting, what_to_do = _explained(error, topic, limits, size)
    return RefusedByKafkaError(
        topic, reason, setting=setting, what_to_do=what_to_do, place=place, order_id=order_id
    )


def _explained(error: BaseException, topic: str, limits: TopicLimits, size: int) -> tuple[str, str, str]:
    """The reason, the setting, and what to do."""
    name = name_of(error)
    if isinstance(error, MessageSizeTooLargeError | RecordListTooLargeError):
        known = f", and max.message.bytes is {limits.max_batch_bytes:,}" if limits.is_read else ""
        what_to_do = f"raise max.message.bytes of {topic} to {size} or more"
        return f"{name}: it takes {size:,} bytes{known}", "max.message.bytes", what_to_do
    if isinstance(error, InvalidTimestampError):
        what_to_do = (
            f"set message.timestamp.type of {topic} to LogAppendTime, or see to the clocks of PostgreSQL, the"
            " workers and the brokers"
        )
        return name, "message.timestamp.before.max.ms or message.timestamp.after.max.ms", what_to_do
    if isinstance(error, TopicAuthorizationFailedError | ClusterAuthorizationFailedError):
        return name, "ACL", f"grant the worker's user WRITE and DESCRIBE on topic {topic}"
    if isinstance(error, UnknownTopicOrPartitionError):
        return name, "topic", f"create topic {topic} (`order-worker topics create`)"
    if limits.compacted:
        return name, "cleanup.policy", f"set cleanup.policy of {topic} to delete"
    return name, "a rule of the broker", f"the brokers' log says why they take it not into {topic}"


def withheld_sentences(rows: Sequence[Withheld]) -> list[str]:
    """A sentence for each of the first withheld outcomes, with what to do; then how many more there are."""
    sentences = [
        f"{row.topic} refuses the outcome of order {row.order_id}, from"
        f" {row.source_topic}-{row.source_partition}@{row.source_offset} ({row.reason}): {row.what_to_do}"
        for row in rows[:_MOST_NAMED]
    ]
    left = len(rows) - len(sentences)
    return [*sentences, f"{left:,} more outcomes are refused as well"] if left else sentences
