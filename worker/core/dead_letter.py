"""Builds dead letters: the record as it came, and the reason why it cannot be decided. Pure."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final, NamedTuple

from contracts.dead_letters import read_letter_headers
from contracts.events import DeadLetterCode
from contracts.fields import time_text
from worker.core.triage import Source

# A batch has a header of 61 bytes, and a record some numbers besides its key, value and headers.
_FRAMING_BYTES: Final = 61 + 35
_LENGTH_BYTES: Final = 4  # of a text of up to 128 MiB
# Says that the worker made the key: the record had none, and a compacted topic takes none without.
MADE_UP_KEY_HEADER: Final = "key.made_up"
_OUR_HEADERS: Final = frozenset(
    [
        *("error.code", "error.message", "error.path"),
        *("source.topic", "source.partition", "source.offset", "source.timestamp"),
        *("failed_at", "value.cut_from_bytes", "headers.cut", "key.cut_from_bytes", MADE_UP_KEY_HEADER),
    ]
)
_WORDY: Final = frozenset(["error.message", "error.path"])
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
        "failed_at": time_text(failed_at),
    }
    kept = [(name, value) for name, value in original if name not in _OUR_HEADERS]
    return [*kept, *((name, text.encode()) for name, text in ours.items())]


def own_headers(headers: Sequence[tuple[str, bytes | None]]) -> list[tuple[str, bytes | None]]:
    """The headers that the record came with, before it became a dead letter or was redriven."""
    return [(name, value) for name, value in headers if name not in _OUR_HEADERS and name != REDRIVE_HEADER]


def own_key(key: bytes | None, headers: Iterable[tuple[str, bytes | None]]) -> bytes | None:
    """The key that the record came with, or its beginning where it was cut."""
    return None if any(name == MADE_UP_KEY_HEADER for name, _ in headers) else key


class Form(NamedTuple):
    """The content of a record, without its offset and time."""

    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]


def is_letter(headers: Iterable[tuple[str, bytes | None]]) -> bool:
    """Whether these are the headers of a dead letter written by a worker, and not of an outcome."""
    return any(name == "source.offset" for name, _ in headers)


def source_of(headers: Iterable[tuple[str, bytes | None]]) -> Source:
    """The record that became this dead letter."""
    said = read_letter_headers(list(headers)).source
    assert said is not None
    return Source(*said)


def with_made_up_key(form: Form) -> Form:
    """With a key made of its source if it has none, for a compacted topic, which refuses records without."""
    if form.key is not None:
        return form
    topic, partition, offset = source_of(form.headers)
    key = f"{topic}-{partition}-{offset}".encode()
    return Form(key, form.value, [*form.headers, (MADE_UP_KEY_HEADER, b"true")])


def size_of(form: Form) -> int:
    """The bytes of a record batch with this one record, as Kafka counts them, or up to a few dozen more."""
    headers = sum(
        len(name.encode()) + len(content or b"") + 2 * _LENGTH_BYTES for name, content in form.headers
    )
    return _FRAMING_BYTES + len(form.key or b"") + len(form.value or b"") + headers


def fit(form: Form, max_bytes: int) -> Form:
    """Unchanged if it fits into a batch of `max_bytes` by itself; else cut until it fits.

    The value is cut first; then all of the record's own headers, if they take more than a quarter of the
    room; then the texts about the error; last the key. Headers give the original size of what was cut, and
    always that of the value. Where the record came from is never cut, even if the rest exceeds `max_bytes`:
    the whole record is still there.
    """
    if size_of(form) <= max_bytes:
        return form
    own = [(name, content) for name, content in form.headers if name not in _OUR_HEADERS]
    ours = [(name, content) for name, content in form.headers if name in _OUR_HEADERS]
    if size_of(Form(None, None, own)) > max_bytes // 4:
        ours, own = [*ours, ("headers.cut", str(len(own)).encode())], []
    cut = _with_cut_value(form._replace(headers=[*own, *ours]), max_bytes)
    if size_of(cut) > max_bytes:
        terse = [(name, b"" if name in _WORDY else content) for name, content in ours]
        cut = _with_cut_value(form._replace(headers=terse), max_bytes)
    return cut if size_of(cut) <= max_bytes else _with_cut_key(cut, max_bytes)


def is_minimal(form: Form) -> bool:
    """Whether a dead letter cannot be cut further."""
    return not form.value and not form.key and all(name in _OUR_HEADERS for name, _ in form.headers)


def _with_cut_value(form: Form, max_bytes: int) -> Form:
    cut = [*form.headers, ("value.cut_from_bytes", str(len(form.value or b"")).encode())]
    room = max(0, max_bytes - size_of(Form(form.key, b"", cut)))
    return Form(form.key, None if form.value is None else form.value[:room], cut)


def _with_cut_key(form: Form, max_bytes: int) -> Form:
    if form.key is None:
        return form
    cut = [*form.headers, ("key.cut_from_bytes", str(len(form.key)).encode())]
    room = max(0, max_bytes - size_of(Form(b"", form.value, cut)))
    return Form(form.key[:room], form.value, cut)
