"""A dead letter as an operator speaks of it: its place, why it is one, which are meant, and groups. Pure."""

import re
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, NamedTuple

from contracts.dead_letters import read_letter_headers
from worker.core.triage import Source

# Anybody may write into the topic; what we write has a few dozen groups.
MAX_GROUPS: Final = 1_000
OTHER: Final = "(other)"  # the code of what comes beyond
UNMARKED: Final = "(none)"  # the code of a record that no worker wrote

_PLACE: Final = re.compile(r"(\d{1,9}):(\d{1,18})")
_INDEX: Final = re.compile(r"(?<=\.)\d+(?=\.|$)")


class LetterPlace(NamedTuple):
    """Where a dead letter lies in its topic."""

    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.partition}:{self.offset}"


@dataclass(frozen=True, slots=True)
class Letter:
    """What the headers of one record of the dead letters' topic tell. `source` None: no worker wrote it."""

    place: LetterPlace
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

    places: frozenset[LetterPlace] = frozenset()
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


class LetterTally:
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


def parse_place(text: str) -> LetterPlace | None:
    """From `2:17`; None where it is not written so."""
    found = _PLACE.fullmatch(text)
    return LetterPlace(int(found[1]), int(found[2])) if found else None


def read_letter(record: Any) -> Letter:
    """Never raises because of what somebody wrote into the topic."""
    said = read_letter_headers(record.headers)
    return Letter(
        place=LetterPlace(record.partition, record.offset),
        source=Source(*said.source) if said.source else None,
        code=said.code or UNMARKED,
        path=said.path,
        message=said.message,
        failed_at=said.failed_at,
        cut_from_bytes=said.cut_from_bytes,
        redrive_id=said.redrive_id,
    )
