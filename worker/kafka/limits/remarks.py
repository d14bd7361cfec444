"""Warns of harmful topic settings before they do harm: a line each, with setting and remedy. Pure."""

from collections.abc import Iterator
from enum import Enum, auto
from typing import Final

from worker.kafka.limits.topic_limits import TopicLimits


class Use(Enum):
    """What a topic is for."""

    INPUT = auto()
    OUTCOMES = auto()
    DEAD_LETTERS = auto()


_HOUR_MS: Final = 60 * 60 * 1_000
_DAY_MS: Final = 24 * _HOUR_MS
# An order of a thousand items, rejected for two reasons each.
LARGEST_OUTCOME_BYTES: Final = 256 * 1024
# What our headers add to a record that becomes a dead letter.
LETTER_HEADER_BYTES: Final = 8 * 1024
# An input record must outlive the longest time that all workers are down, an outcome the longest time that
# its subscribers are, and a dead letter the time until an operator looks.
_LEAST_RETENTION_MS: Final = {Use.INPUT: _DAY_MS, Use.OUTCOMES: _DAY_MS, Use.DEAD_LETTERS: 7 * _DAY_MS}
_COMPACTION: Final = {
    Use.INPUT: "would delete an order before it is decided, if another record has its key",
    Use.OUTCOMES: (
        "keeps the last record of each key only, so that what is published again hides the first, and"
        " `reconcile` cannot say what is missing"
    ),
    Use.DEAD_LETTERS: "takes no record without a key, and keeps the last dead letter of each key only",
}


def remarks(topic: str, use: Use, limits: TopicLimits, needed_bytes: int = 0) -> Iterator[str]:
    """Empty if the settings are not known. `needed_bytes`: of the largest possible dead letter."""
    if not limits.is_read:
        return
    if limits.compacted:
        yield f"{topic}: compaction {_COMPACTION[use]}: set cleanup.policy=delete"
    if 0 <= limits.retention_ms < _LEAST_RETENTION_MS[use]:
        yield (
            f"{topic}: retention.ms={limits.retention_ms} deletes records after"
            f" {_hours(limits.retention_ms)}: set it to {_LEAST_RETENTION_MS[use]} or more"
        )
    if use is Use.INPUT:
        return
    least = LARGEST_OUTCOME_BYTES if use is Use.OUTCOMES else needed_bytes
    if not limits.fits(least):
        what = "an outcome of 1,000 items" if use is Use.OUTCOMES else "any dead letter"
        yield (
            f"{topic}: max.message.bytes={limits.max_batch_bytes} is too small for {what}:"
            f" it should be {least} or more"
        )
    if not limits.stamped_by_broker and min(limits.before_max_ms, limits.after_max_ms) < _HOUR_MS:
        yield (
            f"{topic}: message.timestamp.before.max.ms or message.timestamp.after.max.ms is below an hour,"
            " so that records may be refused for their time: set message.timestamp.type=LogAppendTime"
        )


def _hours(milliseconds: int) -> str:
    return f"{milliseconds / _HOUR_MS:.1f} hours"
