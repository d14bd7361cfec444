"""A dead letter as an operator speaks of it: its place, why it is one, which are meant, and groups. Pure."""

import re
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, NamedTuple

from worker.triage import Source

# Anybody may write into the topic; what we write has a few dozen groups.
MAX_GROUPS: Final = 1_000
OTHER: Final = "(other)"  # the code of what comes beyond
UNMARKED: Final = "(none)"  # the code of a record that no worker wrote

_PLACE: Final = re.compile(r"(\d{1,9}):(\d{1,18})")
_INDEX: Final = re.compile(r"(?<=\.)\d+(?=\.|$)")
_DIGITS: Final = re.compile(r"\d{1,18}")


class Place(NamedTuple):
    """Where a dead letter lies in its topic."""

    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.partition}:{self.offset}"


@dataclass(frozen=True, slots=True)
class Letter:
    """What the headers of one record of the dead letters' topic tell. `source` None: no worker wrote it."""

    place: Place
    source: Source | None
    code: str
    path: str
    message: str
    failed_at: datetime | None
    cut_from_bytes: int | None
    redrive_id: str | None


@dataclass(frozen=True, slots=True)
class Choice:
    """Which dead letters are meant: those that all of it applies to; nothing given: all of them.

    In `path` a `*` stands for any item: `items.*.quantity`.
    """

    places: frozenset[Place] = frozenset()
    code: str | None = None
    path: str | None = None
    start: datetime | None = None
    end: datetime | None = None

    def takes(self, letter: Letter) -> bool:
        return (
            (not self.places or letter.place in self.places)
            and self.code in (None, letter.code)
            and self.path in (None, letter.path, general(letter.path))
            and self._failed_in_time(letter.failed_at)
        )

    def _failed_in_time(self, failed_at: datetime | None) -> bool:
        if self.start is None and self.end is None:
            return True
        if failed_at is None:
            return False
        return (self.start is None or failed_at >= self.start) and (self.end is None or failed_at < self.end)


@dataclass(slots=True)
class Group:
    """Dead letters of one code and path: `path` is exact where all have the same."""

    code: str
    path: str
    sample: str
    message: str
    count: int = 0
    first_failed_at: datetime | None = None
    last_failed_at: datetime | None = None
    redriven: Counter[str] = field(default_factory=Counter)
    """how many of them were redriven before, by what came of it"""


class Tally:
    """Groups dead letters, in memory for as many as there are groups."""

    def __init__(self) -> None:
        self._groups: dict[tuple[str, str], Group] = {}

    def add(self, letter: Letter, redriven: str | None = None) -> None:
        group = self._group(letter)
        group.count += 1
        if letter.path != group.path:
            group.path = general(letter.path)
        if letter.failed_at:
            group.first_failed_at = min(group.first_failed_at or letter.failed_at, letter.failed_at)
            group.last_failed_at = max(group.last_failed_at or letter.failed_at, letter.failed_at)
        if redriven:
            group.redriven[redriven] += 1

    def groups(self) -> list[Group]:
        """The largest first."""
        return sorted(self._groups.values(), key=lambda g: (-g.count, g.code, g.path))

    def _group(self, letter: Letter) -> Group:
        key = (letter.code, general(letter.path))
        if key not in self._groups and len(self._groups) >= MAX_GROUPS:
            key = (OTHER, "")
        if key not in self._groups:
            path = letter.path if key[0] != OTHER else ""
            self._groups[key] = Group(key[0], path, str(letter.place), letter.message)
        return self._groups[key]


def general(path: str) -> str:
    """The path without the numbers of items: `items.*.quantity`."""
    return _INDEX.sub("*", path)


def parse_place(text: str) -> Place | None:
    """From `2:17`; None where it is not written so."""
    found = _PLACE.fullmatch(text)
    return Place(int(found[1]), int(found[2])) if found else None


def read_letter(record: Any) -> Letter:
    """Never raises because of what somebody wrote into the topic."""
    # Ours come last, and those of an earlier life are gone.
    texts = {name: (value or b"").decode("utf-8", "replace") for name, value in record.headers}
    return Letter(
        place=Place(record.partition, record.offset),
        source=_source(texts),
        code=texts.get("error.code", UNMARKED),
        path=texts.get("error.path", ""),
        message=texts.get("error.message", ""),
        failed_at=_time(texts.get("failed_at")),
        cut_from_bytes=_number(texts.get("value.cut_from_bytes")),
        redrive_id=texts.get("redrive.id"),
    )


def _source(texts: dict[str, str]) -> Source | None:
    topic = texts.get("source.topic")
    partition, offset = _number(texts.get("source.partition")), _number(texts.get("source.offset"))
    if not topic or "\0" in topic or partition is None or offset is None or partition >= 2**31:
        return None
    return Source(topic, partition, offset)


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and _DIGITS.fullmatch(text) else None


def _time(text: str | None) -> datetime | None:
    try:
        time = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return time if time.tzinfo else None
