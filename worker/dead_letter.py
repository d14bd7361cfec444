"""What becomes of a record that cannot be decided: the record as it came, and why. Pure."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from contracts.events import DeadLetterCode
from worker.triage import Source

# What a record's own framing and our headers can add to its value: the topic must hold all of it.
OVERHEAD_BYTES: Final = 8 * 1024
_OUR_HEADERS: Final = frozenset(
    [
        *("error.code", "error.message", "error.path"),
        *("source.topic", "source.partition", "source.offset", "source.timestamp"),
        *("failed_at", "value.cut_from_bytes"),
    ]
)
# On a record that is a dead letter sent again: which redrive it is of. The worker does not look at it; where
# it fails once more, its new dead letter keeps it among the record's own headers.
REDRIVE_HEADER: Final = "redrive.id"


def dead_letter_headers(
    code: DeadLetterCode,
    message: str,
    path: str,
    source: Source,
    source_timestamp_ms: int,
    failed_at: datetime,
    original: Sequence[tuple[str, bytes | None]],
) -> list[tuple[str, bytes | None]]:
    """The record's own headers, untouched, then ours. `failed_at` is aware UTC.

    A header of an earlier life of the record (it was redriven) gives way to the new one of that name.
    """
    ours = {
        "error.code": code.value,
        "error.message": message,
        "error.path": path,
        "source.topic": source.topic,
        "source.partition": str(source.partition),
        "source.offset": str(source.offset),
        "source.timestamp": str(source_timestamp_ms),
        "failed_at": failed_at.isoformat(),
    }
    kept = [(name, value) for name, value in original if name not in _OUR_HEADERS]
    return [*kept, *((name, text.encode()) for name, text in ours.items())]


def own_headers(headers: Sequence[tuple[str, bytes | None]]) -> list[tuple[str, bytes | None]]:
    """Those that the record came with, before it was a dead letter or was sent again."""
    return [(name, value) for name, value in headers if name not in _OUR_HEADERS and name != REDRIVE_HEADER]


def fit(
    value: bytes | None, headers: list[tuple[str, bytes | None]], max_bytes: int
) -> tuple[bytes | None, list[tuple[str, bytes | None]]]:
    """As they are where `max_bytes` hold them; else cut, with the real size in `value.cut_from_bytes`.

    A record that its dead letter's topic cannot hold must not hold up its neighbours for ever. It is
    still whole in the input topic, at the source offset that the headers name.
    """
    size = len(value or b"") + sum(len(name) + len(content or b"") + 10 for name, content in headers)
    room = max_bytes - OVERHEAD_BYTES
    if size <= room:
        return value, headers
    ours = [(name, content) for name, content in headers if name in _OUR_HEADERS]
    ours.append(("value.cut_from_bytes", str(len(value or b"")).encode()))
    return None if value is None else value[: max(0, room - OVERHEAD_BYTES)], ours
