"""Renders the page's HTML. Pure but for the templates.

Links are relative, so that the page works behind a proxy that strips a prefix of the path: `root` is the way
from the page's own path to the overview.
"""

import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf
from typing import Final
from uuid import UUID

from aiokafka import ConsumerRecord

from worker.http.page.cached_query import Panel
from worker.http.page.filters import render, some
from worker.http.page.lists import LettersFound, OrdersFound, RejectionsFound
from worker.http.page.overview import LATEST, Overview
from worker.http.page.parameters import (
    LETTER_CODES,
    REASONS,
    STATUSES,
    LetterQuery,
    OrderQuery,
    RejectionQuery,
    letters_of,
)
from worker.kafka.client_names import version_of
from worker.operations.dead_letters.letter import general, order_id_of, read_letter
from worker.operations.explain.explanation import Explanation
from worker.operations.explain.facts import time_of
from worker.operations.explain.order_facts import State
from worker.operations.explain.sections import not_looked_at, sections
from worker.operations.lag.measure import GroupLag, PartitionLag
from worker.operations.lag.terminal import remarks_on

MOST_ROWS: Final = 200  # of a table; the command shows more
MOST_GROUPS: Final = 20
MOST_PARTITIONS: Final = 24
MOST_HEADERS: Final = 60

TOP: Final = "./"  # the root of a page beside the overview
ONE_DOWN: Final = "../"  # the root of a page one folder below
TWO_DOWN: Final = "../../"

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


def overview_page(overview: Overview) -> str:
    lag = overview.lag.value
    groups = overview.letters.value.groups if overview.letters.value else ()
    return render(
        "overview.html",
        TOP,
        o=overview,
        notes=remarks_on(lag) if lag else [],
        owned=Counter(row.owner for row in lag.partitions) if lag else {},
        versions=len({version_of(member.client_id) for member in lag.members}) if lag else 0,
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
    """Partitions of unknown lag come first."""
    return (-inf if row.lag is None else -row.lag), row.partition


def order_page(
    order_id: UUID, explanation: Explanation | None, trouble: str = "", topics_trouble: str = ""
) -> str:
    """`trouble`: nothing could be read. `topics_trouble`: only PostgreSQL could."""
    return render(
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
    """A dead letter: why it is one, and the commands that deal with it."""
    letter = read_letter(record)
    place = str(letter.place)
    return render(
        "letter.html",
        ONE_DOWN,
        letter=letter,
        redrive=_command("dead-letters", "redrive", place),
        settle=_command("dead-letters", "settle", place, "--note", "…"),
        like_it=letters_of(letter.code, general(letter.path)),
        **_shown_record(record),
    )


def record_page(record: ConsumerRecord) -> str:
    """A record of one of the topics, as it is stored."""
    return render(
        "record.html", TWO_DOWN, place=f"{record.partition}:{record.offset}", **_shown_record(record)
    )


def _shown_record(record: ConsumerRecord) -> dict[str, object]:
    headers = [Header(name, "none" if value is None else some(value).text) for name, value in record.headers]
    return {
        "topic": record.topic,
        "time": time_of(record),
        "key": some(record.key),
        "value": some(record.value),
        "headers": headers[:MOST_HEADERS],
        "headers_left_out": max(0, len(headers) - MOST_HEADERS),
        "ids": order_ids(record),
    }


def orders_page(query: OrderQuery, found: Panel[OrdersFound]) -> str:
    orders = found.value.orders if found.value else ()
    more = found.value is not None and found.value.more
    return render(
        "orders.html",
        TOP,
        query=query,
        found=found,
        older=query.address((orders[-1].created_at, orders[-1].order_id)) if more else "",
        newest=query.address() if query.after else "",
        statuses=STATUSES,
    )


def rejections_page(query: RejectionQuery, found: Panel[RejectionsFound]) -> str:
    older = found.value.older if found.value else None
    return render(
        "rejections.html",
        TOP,
        query=query,
        found=found,
        older=query.address(older) if older else "",
        newest=query.address() if query.before else "",
        reasons=REASONS,
    )


def letters_page(query: LetterQuery, found: Panel[LettersFound]) -> str:
    older = found.value.older if found.value else None
    choice = {"--code": query.choice.code, "--path": query.choice.path}
    options = [word for name, value in choice.items() if value for word in (name, value)]
    return render(
        "letters.html",
        TOP,
        query=query,
        found=found,
        older=query.address(older) if older else "",
        newest=query.address() if query.before else "",
        codes=LETTER_CODES,
        redrive=_command("dead-letters", "redrive", *options),
    )


def _command(*words: str) -> str:
    """To be copied."""
    return shlex.join(["order-worker", *words])


def trouble_page(trouble: str, root: str, searched: str = "") -> str:
    return render("trouble.html", root, trouble=trouble, searched=searched)


def _ends(explanation: Explanation) -> Iterator[str]:
    yield from explanation.facts.notes
    yield from (f"{count}." for count in explanation.facts.unreadable)
    if unread := not_looked_at(explanation.facts.unread):
        yield f"{unread} `order-worker explain --scan all {explanation.order_id}` reads everything."


def order_ids(record: ConsumerRecord) -> Sequence[UUID]:
    """The order id of the record, for a link; None if the record does not show one."""
    order_id = order_id_of(record.key, record.value)
    return [order_id] if order_id else []
