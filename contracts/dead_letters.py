"""The headers of a dead letter: their names and meaning.

Anybody may write into the topic of the dead letters. So every number has a bound, and what is out of it, or
is not written as a worker writes it, is as good as not there.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, NamedTuple

from contracts.envelope import Headers

ERROR_CODE: Final = "error.code"
ERROR_MESSAGE: Final = "error.message"
ERROR_PATH: Final = "error.path"
SOURCE_TOPIC: Final = "source.topic"
SOURCE_PARTITION: Final = "source.partition"
SOURCE_OFFSET: Final = "source.offset"
SOURCE_TIMESTAMP: Final = "source.timestamp"
FAILED_AT: Final = "failed_at"
CUT_FROM_BYTES: Final = "value.cut_from_bytes"
# On a record that is a dead letter sent again: which redrive it is of.
REDRIVE_ID: Final = "redrive.id"

MAX_PARTITION: Final = 2**31 - 1
MAX_OFFSET: Final = 2**63 - 1

_TOPIC: Final = re.compile(r"[a-zA-Z0-9._-]{1,249}")
_MOST_DIGITS: Final = 19  # those of 2^63; more need not be converted to know that they are too many


class LetterSource(NamedTuple):
    """The input record that could not be decided."""

    topic: str
    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class LetterHeaders:
    """The headers of one dead letter, parsed. `source` None: no worker wrote it.

    Texts are empty where there are none. `source_timestamp_ms` is -1 where the source had no time,
    `failed_at` in UTC.
    """

    code: str
    message: str
    path: str
    source: LetterSource | None
    source_timestamp_ms: int | None
    failed_at: datetime | None
    cut_from_bytes: int | None
    redrive_id: str | None


def read_letter_headers(headers: Headers) -> LetterHeaders:
    """Never raises, for any headers."""
    # Of several headers with one name the last counts: a worker appends its own to those of the record.
    last = {name: value for name, value in headers if value is not None}
    return LetterHeaders(
        code=_text(last, ERROR_CODE),
        message=_text(last, ERROR_MESSAGE),
        path=_text(last, ERROR_PATH),
        source=_source(last),
        source_timestamp_ms=_timestamp(last.get(SOURCE_TIMESTAMP)),
        failed_at=_time(_text(last, FAILED_AT)),
        cut_from_bytes=_number(last.get(CUT_FROM_BYTES), MAX_OFFSET),
        redrive_id=_text(last, REDRIVE_ID) or None,
    )


def _source(last: dict[str, bytes]) -> LetterSource | None:
    topic = _text(last, SOURCE_TOPIC)
    partition = _number(last.get(SOURCE_PARTITION), MAX_PARTITION)
    offset = _number(last.get(SOURCE_OFFSET), MAX_OFFSET)
    if not _TOPIC.fullmatch(topic) or partition is None or offset is None:
        return None
    return LetterSource(topic, partition, offset)


def _text(last: dict[str, bytes], name: str) -> str:
    return last.get(name, b"").decode("utf-8", "replace")


def _number(text: bytes | None, most: int) -> int | None:
    if not text or not text.isdigit() or len(text) > _MOST_DIGITS:
        return None
    number = int(text)
    return number if number <= most else None


def _timestamp(text: bytes | None) -> int | None:
    return -1 if text == b"-1" else _number(text, MAX_OFFSET)


def _time(text: str) -> datetime | None:
    try:
        time = datetime.fromisoformat(text)
        return time.astimezone(UTC) if time.tzinfo else None
    except (ValueError, OverflowError):  # OverflowError: the first or the last day there is, elsewhere
        return None
