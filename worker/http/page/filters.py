"""The Jinja templates, which are read once, and their filters.

Jinja escapes all data; `text` also makes characters visible that are invisible or change the reading order.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from worker.core.triage import Source
from worker.http.page.parameters import letters_of
from worker.kafka.client_names import version_of
from worker.operations.explain.order_facts import Place
from worker.operations.explain.sections import Section
from worker.operations.lag.measure import GroupLag
from worker.operations.lag.terminal import pace_cells, short_id
from worker.operations.screen import shown

LONGEST_TEXT: Final = 300
LONGEST_VALUE: Final = 8 * 1024
_TOPIC: Final = re.compile(r"[a-zA-Z0-9._-]{1,249}")


@dataclass(frozen=True, slots=True)
class SomeBytes:
    """The beginning of a value as text, and how long all of it is."""

    text: str
    size: int
    cut: bool


def some(value: bytes | None) -> SomeBytes:
    """The bytes as text; what is not UTF-8 is replaced."""
    begin = (value or b"")[:LONGEST_VALUE].decode(errors="replace")
    return SomeBytes(begin, len(value or b""), len(value or b"") > LONGEST_VALUE)


def text(value: object, longest: int = LONGEST_TEXT) -> str:
    """As `screen.shown`, shortened."""
    begin = shown(value)
    return begin if len(begin) <= longest else f"{begin[:longest]}…"


def lines(value: str) -> str:
    """Text of several lines: every unprintable character but a line end is shown as a dot."""
    return "\n".join(shown(line) for line in value.split("\n"))


def utc(time: datetime | None) -> str:
    return "–" if time is None else f"{time.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def drained(lag: GroupLag) -> str:
    """When no record will wait any more. "never" is for a partition in a table; by itself it would alarm."""
    if lag.lag is None:
        return "–"
    if not lag.lag:
        return "nothing waits"
    if lag.pace is None or lag.pace.keeps_up or lag.pace.seconds_to_drain is not None:
        return pace_cells(lag.lag, lag.pace)[-1]
    return "lag grows" if lag.pace.arriving_per_second > lag.pace.decided_per_second else "lag stays"


def number(value: float | Decimal | None) -> str:
    return "–" if value is None else f"{value:,.0f}"


def percent(share: float | None) -> str:
    """A percentage that is 0 % only of nothing, and 100 % only of everything."""
    if share is None:
        return ""
    if 0 < share < 0.01:
        return "< 1 %"
    return f"{min(99, round(share * 100)) if share < 1 else 100} %"


def words(code: object) -> str:
    return text(str(code).replace("_", " "))


def _kind(section: Section, column: int, cell: object = None) -> str:
    """The class of a cell: numbers to the right, and what is one word on one line."""
    if section.head[column] in section.numbers:
        return "n"
    return "one" if isinstance(cell, Place | datetime) else "words"


def _record_link(cell: object) -> str:
    """From the root to the page of the record that a cell names; empty where it names none."""
    if not isinstance(cell, Place | Source) or not _TOPIC.fullmatch(cell.topic):
        return ""
    return f"records/{cell.topic}/{cell.partition}:{cell.offset}"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    for made in (text, lines, utc, drained, number, percent, words, short_id):
        environment.filters[made.__name__] = made
    environment.filters["pace"] = lambda lag, pace: pace_cells(lag, pace)
    environment.filters["record_link"] = _record_link
    environment.filters["version"] = lambda client_id: version_of(client_id) or "–"
    environment.globals["kind"] = _kind
    environment.globals["letters_of"] = letters_of
    return environment


def render(template: str, root: str, **values: object) -> str:
    return _environment().get_template(template).render(**{"searched": "", **values}, root=root)
