"""From what is known to HTML. Pure but for the templates, which are read once.

Links are relative, so that the page works behind a proxy that strips a prefix of the path: `root` is the way
from the page's own path to the overview.

Whatever comes from outside is escaped by Jinja; `text` makes visible what would not be seen, or would be seen
in another order than it is written.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache
from math import inf
from pathlib import Path
from typing import Final
from uuid import UUID

from aiokafka import ConsumerRecord
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from worker.http.page.overview import LATEST, Overview
from worker.operations.dead_letters.letter import read_letter
from worker.operations.explain.explanation import Explanation
from worker.operations.explain.facts import time_of
from worker.operations.explain.order_facts import Place, State
from worker.operations.explain.sections import Section, not_looked_at, sections
from worker.operations.lag.measure import GroupLag, PartitionLag
from worker.operations.lag.terminal import pace_cells, remarks_on, short_id
from worker.operations.screen import shown

LONGEST_TEXT: Final = 300
LONGEST_VALUE: Final = 8 * 1024
MOST_ROWS: Final = 200  # of a table; the command shows more
MOST_GROUPS: Final = 20
MOST_PARTITIONS: Final = 24
MOST_HEADERS: Final = 60

TOP: Final = "./"  # the root of a page beside the overview
ONE_DOWN: Final = "../"  # the root of a page one folder below

# Well; not what was hoped for; on its way; somebody has to do something.
_TONES: Final = {
    State.CONFIRMED: "good",
    State.REJECTED: "busy",
    State.WAITING: "calm",
    State.DEAD_LETTER: "bad",
    State.PASSED_OVER: "bad",
    State.DIRECT: "good",
    State.NOT_FOUND: "calm",
}


@dataclass(frozen=True, slots=True)
class Header:
    """One header of a record, as text."""

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class SomeBytes:
    """The beginning of a value as text, and how long all of it is; None: there is none."""

    text: str
    size: int
    cut: bool


def overview_page(overview: Overview) -> str:
    lag = overview.lag.value
    groups = overview.letters.value.groups if overview.letters.value else ()
    return _render(
        "overview.html",
        TOP,
        o=overview,
        notes=remarks_on(lag) if lag else [],
        hosts={member.member_id: member.host for member in lag.members} if lag else {},
        partitions=_furthest_behind(lag) if lag else (),
        partitions_left_out=max(0, len(lag.partitions) - MOST_PARTITIONS) if lag else 0,
        groups=groups[:MOST_GROUPS],
        groups_left_out=max(0, len(groups) - MOST_GROUPS),
        latest=overview.rejections.value.latest[:LATEST] if overview.rejections.value else (),
    )


def _furthest_behind(lag: GroupLag) -> Sequence[PartitionLag]:
    """In the order of their numbers, and of many partitions those with the most lag."""
    most = sorted(lag.partitions, key=_behind)[:MOST_PARTITIONS]
    return sorted(most, key=lambda row: row.partition)


def _behind(row: PartitionLag) -> tuple[float, int]:
    """Those first of which nobody knows how much waits."""
    return (-inf if row.lag is None else -row.lag), row.partition


def order_page(
    order_id: UUID, explanation: Explanation | None, trouble: str = "", topics_trouble: str = ""
) -> str:
    """`trouble`: nothing could be read. `topics_trouble`: only PostgreSQL could."""
    return _render(
        "order.html",
        ONE_DOWN,
        order_id=order_id,
        explanation=explanation,
        tone=_TONES[explanation.state] if explanation else "calm",
        sections=list(sections(explanation.facts)) if explanation else [],
        ends=list(_ends(explanation)) if explanation else [],
        most_rows=MOST_ROWS,
        trouble=trouble,
        topics_trouble=topics_trouble,
        searched=str(order_id),
    )


def letter_page(record: ConsumerRecord) -> str:
    headers = [Header(name, "none" if value is None else some(value).text) for name, value in record.headers]
    return _render(
        "letter.html",
        ONE_DOWN,
        letter=read_letter(record),
        topic=record.topic,
        time=time_of(record),
        key=some(record.key),
        value=some(record.value),
        headers=headers[:MOST_HEADERS],
        headers_left_out=max(0, len(headers) - MOST_HEADERS),
        ids=order_ids(record),
    )


def trouble_page(trouble: str, root: str, searched: str = "") -> str:
    return _render("trouble.html", root, trouble=trouble, searched=searched)


def _ends(explanation: Explanation) -> Iterator[str]:
    yield from explanation.facts.notes
    yield from (f"{count}." for count in explanation.facts.unreadable)
    if unread := not_looked_at(explanation.facts.unread):
        yield f"{unread} `order-worker explain --scan all {explanation.order_id}` reads everything."


def order_ids(record: ConsumerRecord) -> Sequence[UUID]:
    """The order that the key names, for a link; none where it is no order id."""
    try:
        return [UUID((record.key or b"").decode())]
    except ValueError:
        return []


def some(value: bytes | None) -> SomeBytes:
    """Text as far as it is UTF-8."""
    begin = (value or b"")[:LONGEST_VALUE].decode(errors="replace")
    return SomeBytes(begin, len(value or b""), len(value or b"") > LONGEST_VALUE)


def text(value: object, longest: int = LONGEST_TEXT) -> str:
    """As `screen.shown`, and never long."""
    begin = shown(value)
    return begin if len(begin) <= longest else f"{begin[:longest]}…"


def lines(value: str) -> str:
    """Text of several lines: what cannot be printed is shown as a dot, but for the ends of lines."""
    return "\n".join(shown(line) for line in value.split("\n"))


def utc(time: datetime | None) -> str:
    return "–" if time is None else f"{time.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def drained(lag: GroupLag) -> str:
    """When nothing will wait any more. "never" is for a partition among others; alone it would alarm."""
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
    """Never 0 % of something, nor 100 % of not everything."""
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
    environment.globals["kind"] = _kind
    return environment


def _render(template: str, root: str, **values: object) -> str:
    return _environment().get_template(template).render(**{"searched": "", **values}, root=root)
