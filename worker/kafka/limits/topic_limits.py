"""The limits of a topic: read from its settings, or learned from what it refused. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from worker.kafka.limits.refusals import RefusalRemedy

_MAX_BYTES: Final = "max.message.bytes"
_SEGMENT: Final = "segment.bytes"
_STAMP: Final = "message.timestamp.type"
_BEFORE: Final = "message.timestamp.before.max.ms"
_AFTER: Final = "message.timestamp.after.max.ms"
_CLEANUP: Final = "cleanup.policy"
_RETENTION: Final = "retention.ms"
_IN_SYNC: Final = "min.insync.replicas"
SETTINGS: Final = (_MAX_BYTES, _SEGMENT, _STAMP, _BEFORE, _AFTER, _CLEANUP, _RETENTION, _IN_SYNC)

NEVER: Final = 2**63 - 1
_HOUR_MS: Final = 60 * 60 * 1_000
# A record is under way for a while: it must still be in time when it arrives.
_UNDER_WAY_MS: Final = 30_000
# Below this halving goes no further: no record is so small.
LEAST_BYTES: Final = 64


@dataclass(frozen=True, slots=True)
class TopicLimits:
    """The limits of one topic; without arguments, Kafka's defaults.

    `max_batch_bytes` is of a whole record batch, as Kafka counts it: the 61 bytes of its header, and its
    records. Times in milliseconds. `is_read`: the settings are the topic's own; else we may not read them.
    `own_time`, `needs_key`: learned from a refusal.
    """

    max_batch_bytes: int = 1024 * 1024 + 12
    stamped_by_broker: bool = False
    before_max_ms: int = NEVER
    after_max_ms: int = NEVER
    compacted: bool = False
    retention_ms: int = -1
    min_in_sync: int = 1
    is_read: bool = False
    own_time: bool = False
    needs_key: bool = False

    def fits(self, batch_bytes: int) -> bool:
        """Whether the topic accepts a batch of this size."""
        return batch_bytes <= self.max_batch_bytes

    def takes_time(self, timestamp_ms: int, now_ms: int) -> bool:
        """Whether the topic accepts a record with that timestamp, if it is sent now."""
        if self.stamped_by_broker:
            return True
        oldest = now_ms - self.before_max_ms + min(_UNDER_WAY_MS, self.before_max_ms // 2)
        return not self.own_time and oldest <= timestamp_ms <= now_ms + self.after_max_ms


def parse_limits(settings: Mapping[str, str]) -> TopicLimits:
    """From a topic's settings by name; what is missing, or not understood, has Kafka's default."""
    default = TopicLimits()
    largest = _number(settings.get(_MAX_BYTES), default.max_batch_bytes)
    return TopicLimits(
        max_batch_bytes=min(largest, _number(settings.get(_SEGMENT), largest)),
        stamped_by_broker=settings.get(_STAMP) == "LogAppendTime",
        before_max_ms=_number(settings.get(_BEFORE), NEVER),
        after_max_ms=_number(settings.get(_AFTER), NEVER),
        compacted="compact" in settings.get(_CLEANUP, ""),
        retention_ms=_number(settings.get(_RETENTION), -1),
        min_in_sync=_number(settings.get(_IN_SYNC), 1),
        is_read=True,
        needs_key="compact" in settings.get(_CLEANUP, ""),
    )


def settings_of(responses: Iterable[Any]) -> dict[str, dict[str, str]]:
    """Resource → setting → value, from the answers to `describe_configs`; without those we may not read."""
    return {
        name: {entry[0]: entry[1] for entry in entries if entry[1] is not None}
        for response in responses
        for error_code, _, _, name, entries in response.resources
        if not error_code
    }


def learned(limits: TopicLimits, remedy: RefusalRemedy, refused_bytes: int) -> TopicLimits:
    """The limits to assume after the topic refused a batch of `refused_bytes`, regardless of its settings."""
    match remedy:
        case RefusalRemedy.SMALLER_BATCHES | RefusalRemedy.ALONE | RefusalRemedy.CUT:
            smaller = max(LEAST_BYTES, refused_bytes // 2)
            return replace(limits, max_batch_bytes=min(limits.max_batch_bytes, smaller))
        case RefusalRemedy.OWN_TIME:
            return replace(limits, own_time=True)
        case RefusalRemedy.MADE_UP_KEY:
            return replace(limits, needs_key=True)
        case _:
            return limits


def explains(limits: TopicLimits, remedy: RefusalRemedy, refused_bytes: int) -> bool:
    """Whether settings that were just read explain why a batch of `refused_bytes` was refused."""
    return limits.is_read and remedy is RefusalRemedy.SMALLER_BATCHES and not limits.fits(refused_bytes)


def _number(text: str | None, default: int) -> int:
    try:
        return int(text or "")
    except ValueError:
        return default
