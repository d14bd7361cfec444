"""Dead letters as the commands use them: place, error, filters, groups. Pure."""

import re
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

from contracts.dead_letters import read_letter_headers
from contracts.fields import parse_order_id
from worker.core.triage import Source

# Anybody may write into the topic; what we write has a few dozen groups.
MAX_GROUPS: Final = 1_000
OTHER: Final = "(other)"  # the code of what comes beyond
UNMARKED: Final = "(none)"  # the code of a record that no worker wrote

_PLACE: Final = re.compile(r"([0-9]{1,9}):([0-9]{1,18})")
# The value need not be JSON, and may be cut.
_ORDER_ID: Final = re.compile(rb'"order_id"\s*:\s*"([0-9a-fA-F-]{36})"')
_INDEX: Final = re.compile(r"(?<=\.)\d+(?=\.|$)")


class LetterPlace(NamedTuple):
    """Partition and offset of a dead letter in its topic."""

    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.partition}:{self.offset}"


@dataclass(frozen=True, slots=True)
class Letter:
    """The headers of one record of the dead-letter topic, parsed. `source` None: no worker wrote it."""

    place: LetterPlace
    source: Source | None
    source_timestamp_ms: int | None
    code: str
    path: str
    message: str
    failed_at: datetime | None
    cut_from_bytes: int | None
    redrive_id: str | None


@dataclass(frozen=True, slots=True)
class Choice:
    """A filter on dead letters, which have to match all that is given; an empty filter matches all.

    In `path` a `*` stands for any item: `items.*.quantity`. `with_settled` is not a filter by itself.
    """

    places: frozenset[LetterPlace] = frozenset()
    code: str | None = None
    path: str | None = None
    start: datetime | None = None
    end: datetime | None = None
    with_settled: bool = False

    def asks_for_settled(self, letter: Letter) -> bool:
        """Whether the filter includes this dead letter although it is settled."""
        return self.with_settled or letter.place in self.places

    def asks_for_conflict(self, letter: Letter) -> bool:
        """Whether the filter includes this dead letter although its id was decided for another order."""
        return self.code == letter.code or letter.place in self.places

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
    """how many of them were redriven before, by result"""
    decided: Counter[str] = field(default_factory=Counter)
    """how many of their order ids are in the ledger by now, by outcome"""
    settled: int = 0
    """how many of them are settled"""


class LetterTally:
    """Groups dead letters, in memory for as many as there are groups."""

    def __init__(self) -> None:
        self._groups: dict[tuple[str, str], Group] = {}

    def add(self, letter: Letter, redriven: str = "", *, decided: str = "", is_settled: bool = False) -> None:
        group = self._group(letter)
        group.count += 1
        if letter.path != group.path:
            group.path = general(letter.path)
        if letter.failed_at:
            group.first_failed_at = min(group.first_failed_at or letter.failed_at, letter.failed_at)
            group.last_failed_at = max(group.last_failed_at or letter.failed_at, letter.failed_at)
        if redriven:
            group.redriven[redriven] += 1
        if decided:
            group.decided[decided] += 1
        group.settled += is_settled

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


def order_id_of(key: bytes | None, value: bytes | None) -> UUID | None:
    """The order id of a dead letter, from its value or key; None: neither has one."""
    texts = [found[1] for found in _ORDER_ID.finditer(value or b"")]
    ids = {order_id for text in texts if (order_id := parse_order_id(text.decode()))}
    if len(ids) == 1:
        return ids.pop()
    # Several, or none: a record of the contract has the id for its key.
    return parse_order_id((key or b"").decode("ascii", "replace"))


def parse_place(text: str) -> LetterPlace | None:
    """From `2:17`; None where it is not written so."""
    found = _PLACE.fullmatch(text)
    return LetterPlace(int(found[1]), int(found[2])) if found else None


def read_letter(record: Any) -> Letter:
    """Never raises because of the record's content."""
    said = read_letter_headers(record.headers)
    return Letter(
        place=LetterPlace(record.partition, record.offset),
        source=Source(*said.source) if said.source else None,
        source_timestamp_ms=said.source_timestamp_ms,
        code=said.code or UNMARKED,
        path=said.path,
        message=said.message,
        failed_at=said.failed_at,
        cut_from_bytes=said.cut_from_bytes,
        redrive_id=said.redrive_id,
    )
