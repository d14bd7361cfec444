"""Parses the query parameters of a list. Pure.

Unknown parameters are refused: they would look like a filter that has no effect.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final
from urllib.parse import urlencode
from uuid import UUID

from contracts.events import DeadLetterCode, ReasonCode
from contracts.fields import MAX_ID
from db.statuses import OrderStatus
from worker.errors import UsageError
from worker.kafka.offsets import parse_time
from worker.operations.dead_letters.letter import UNMARKED, Choice

LETTER_CODES: Final = (*(code.value for code in DeadLetterCode), UNMARKED)
REASONS: Final = tuple(code.value for code in ReasonCode)
STATUSES: Final = tuple(status.value for status in OrderStatus)
_NUMBER: Final = re.compile(r"[0-9]{1,19}")
_EDGES: Final = re.compile(r"[0-9]{1,9}:[0-9]{1,18}(,[0-9]{1,9}:[0-9]{1,18})*")
_LONGEST_PATH: Final = 300
_LONGEST: Final = 16_000  # of what is put together here, for a topic of a thousand partitions

Pairs = Iterable[tuple[str, str]]
OrderKey = tuple[datetime, UUID]
Edges = Mapping[int, int]
"""by partition, the offset before which one reads; partitions that are missing are read to their beginning"""


class BadParameterError(Exception):
    """One parameter, and what is to be written there."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"{name}: {why}")


@dataclass(frozen=True, slots=True)
class OrderQuery:
    """Stored orders; `after` is the key of the last one before."""

    user: int | None = None
    status: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    after: OrderKey | None = None

    def address(self, after: OrderKey | None = None) -> str:
        """The link to the next page of the same orders."""
        times = {"from": self.since, "to": self.until}
        key = {"after": f"{after[0].isoformat()},{after[1]}" if after else None}
        bounds = {name: time.isoformat() if time else None for name, time in times.items()}
        return _address("orders", {"user": self.user, "status": self.status, **bounds, **key})


@dataclass(frozen=True, slots=True)
class RejectionQuery:
    """Rejections that have this reason; `before`: None, the newest."""

    reason: str | None = None
    before: Edges | None = None

    def address(self, before: Edges | None = None) -> str:
        return _address("rejections", {"reason": self.reason, "before": _written(before)})


@dataclass(frozen=True, slots=True)
class LetterQuery:
    """Dead letters of this code and path, as `dead-letters list` groups them."""

    choice: Choice = field(default_factory=Choice)
    before: Edges | None = None

    def address(self, before: Edges | None = None) -> str:
        wanted = {"code": self.choice.code, "path": self.choice.path}
        return _address("dead-letters", {**wanted, "before": _written(before)})


def order_query(pairs: Pairs) -> OrderQuery:
    """Raises BadParameterError."""
    given = _given(pairs, "user", "status", "from", "to", "after")
    since, until = _time(given, "from"), _time(given, "to")
    if since and until and since >= until:
        raise BadParameterError("to", f"write a time behind from, which is {given['from']}")
    return OrderQuery(
        _id(given, "user"), _one_of(given, "status", STATUSES), since, until, _key(given, "after")
    )


def rejection_query(pairs: Pairs) -> RejectionQuery:
    """Raises BadParameterError."""
    given = _given(pairs, "reason", "before")
    return RejectionQuery(_one_of(given, "reason", REASONS), _edges(given, "before"))


def letter_query(pairs: Pairs) -> LetterQuery:
    """Raises BadParameterError."""
    given = _given(pairs, "code", "path", "before")
    path = given.get("path")
    if path is not None and not _is_path(path):
        raise BadParameterError(
            "path", f"write a path like items.*.quantity, of at most {_LONGEST_PATH} characters"
        )
    return LetterQuery(Choice(code=_one_of(given, "code", LETTER_CODES), path=path), _edges(given, "before"))


def letters_of(code: str, path: str | None) -> str:
    """The link to the dead letters of a group; empty for a code that cannot be filtered by."""
    if code not in LETTER_CODES or not _is_path(path or ""):
        return ""
    return LetterQuery(Choice(code=code, path=path or None)).address()


def _is_path(text: str) -> bool:
    """Whether the path can be shown and copied as it is: anyone may write dead letters."""
    return text.isprintable() and len(text) <= _LONGEST_PATH


def _given(pairs: Pairs, *known: str) -> dict[str, str]:
    """By name; an empty form field counts as missing."""
    given: dict[str, str] = {}
    for name, value in pairs:
        if name not in known:
            raise BadParameterError(name, f"there is no such parameter; there are {', '.join(known)}")
        if name in given:
            raise BadParameterError(name, "write it once")
        if len(value) > _LONGEST:
            raise BadParameterError(name, f"write at most {_LONGEST:,} characters")
        given[name] = value.strip()
    return {name: value for name, value in given.items() if value}


def _id(given: Mapping[str, str], name: str) -> int | None:
    text = given.get(name)
    if text is None:
        return None
    if not _NUMBER.fullmatch(text) or not 1 <= int(text) <= MAX_ID:
        raise BadParameterError(name, f"write a number from 1 to {MAX_ID}")
    return int(text)


def _one_of(given: Mapping[str, str], name: str, known: Iterable[str]) -> str | None:
    text = given.get(name)
    if text is not None and text not in known:
        raise BadParameterError(name, f"write one of {', '.join(known)}")
    return text


def _time(given: Mapping[str, str], name: str) -> datetime | None:
    if name not in given:
        return None
    try:
        return parse_time(given[name], name)
    except UsageError:
        raise BadParameterError(name, "write a time with its zone, like 2026-11-23T10:00:00Z") from None


def _key(given: Mapping[str, str], name: str) -> OrderKey | None:
    text = given.get(name)
    if text is None:
        return None
    time, _, order_id = text.partition(",")
    try:
        return parse_time(time, name), UUID(order_id)
    except (UsageError, ValueError):
        raise BadParameterError(name, "follow a link of the page: it is TIME,ORDER_ID") from None


def _edges(given: Mapping[str, str], name: str) -> Edges | None:
    text = given.get(name)
    if text is None:
        return None
    if not _EDGES.fullmatch(text):
        raise BadParameterError(name, "follow a link of the page: it is PARTITION:OFFSET,…")
    pairs = [piece.split(":") for piece in text.split(",")]
    return {int(partition): int(offset) for partition, offset in pairs}


def _written(edges: Edges | None) -> str | None:
    return ",".join(f"{partition}:{offset}" for partition, offset in sorted((edges or {}).items())) or None


def _address(path: str, parameters: Mapping[str, object]) -> str:
    given = {name: value for name, value in parameters.items() if value is not None}
    return f"{path}?{urlencode(given)}" if given else path
