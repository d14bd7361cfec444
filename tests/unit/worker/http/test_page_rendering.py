"""The HTML of the page: what comes from outside is text in it, and what is not there is said in words."""

import re
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from html.parser import HTMLParser
from typing import Any
from uuid import UUID

import pytest

from contracts.events import Reason, ReasonCode
from db.statuses import OrderStatus
from db.worker.order_pages import OrderEntry
from tests.support.builders import record
from worker.http.page.cached_query import Panel
from worker.http.page.filters import LONGEST_TEXT, LONGEST_VALUE, drained, percent
from worker.http.page.lists import LettersFound, ListedLetter, OrdersFound, RejectionsFound
from worker.http.page.overview import (
    LetterGroups,
    Overview,
    Rejection,
    Rejections,
    StoredOrders,
    ThisWorker,
    outcomes,
)
from worker.http.page.parameters import (
    letter_query,
    order_query,
    rejection_query,
)
from worker.http.page.rendering import (
    MOST_GROUPS,
    MOST_PARTITIONS,
    TOP,
    letter_page,
    letters_page,
    order_page,
    orders_page,
    overview_page,
    record_page,
    rejections_page,
    trouble_page,
)
from worker.operations.dead_letters.letter import Group, read_letter
from worker.operations.explain.explanation import Explanation, explained, explained_by_rows
from worker.operations.explain.order_facts import DeadLetterRecord, Decision, Facts, Place, Unread
from worker.operations.lag.measure import GroupLag, MemberName, Pace, PartitionLag

ORDER = UUID("0b6f5c1e-5d0e-4c1e-9d0c-6a4a0c1d2e3f")
NOW = datetime(2026, 11, 23, 10, tzinfo=UTC)
HOSTILE = "\"'><script>alert(1)</script><img src=x onerror=y>{{ 7*7 }}\u202e\x00&amp;"
PRINTABLE = "".join(filter(str.isprintable, HOSTILE))
LOCAL = re.compile(
    r"(\./|(\.\./){1,2})(|\?refresh|assets/page\.(css|svg)|metrics|readyz|docs|explain/[0-9a-f-]{36}"
    r"|(orders|rejections|dead-letters)(\?[\w%.:=&*+-]+)?|dead-letters/\d+:\d+|records/[\w.-]+/\d+:\d+)"
)
AWAY: Panel[Any] = Panel(None, "Kafka: connection refused")


class Page(HTMLParser):
    """The tags, attributes and text of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += re.sub(r"\s+", " ", data)

    @property
    def links(self) -> list[str]:
        return [value or "" for name, value in self.attributes if name in {"href", "src", "action"}]


def lag_of(*partitions: PartitionLag, **fields: Any) -> GroupLag:
    members = (MemberName(HOSTILE, HOSTILE, HOSTILE),)
    total = sum(p.lag or 0 for p in partitions)
    found = GroupLag("g", HOSTILE, NOW, members, False, 0.0, partitions, total, 0, (), None)
    return replace(found, **fields)


def partition(number: int, lag: int = 0) -> PartitionLag:
    return PartitionLag(number, 1, 2, lag, 0, HOSTILE, None, (HOSTILE,))


def overview(**fields: Any) -> Overview:
    nothing: dict[str, Any] = {
        "lag": Panel(lag_of(partition(0))),
        "rejections": Panel(Rejections((), None, 0, False)),
        "letters": Panel(LetterGroups((), 0, False)),
        "orders": Panel(StoredOrders((), None)),
        **fields,
    }
    orders = nothing.pop("orders")
    this_worker = ThisWorker(False, {HOSTILE: HOSTILE}, (1, 3), NOW, ())
    nothing["outcomes"] = outcomes(NOW, orders, nothing["rejections"])
    return Overview(time=NOW, group_id=HOSTILE, this_worker=this_worker, refresh=0, **nothing)


def hostile_pages() -> dict[str, str]:
    rejection = Rejection(ORDER, NOW, (HOSTILE,), (HOSTILE,), True)
    group = Group(HOSTILE, HOSTILE, "0:1", HOSTILE, 1, NOW, NOW)
    letter = DeadLetterRecord(
        Place(HOSTILE, 0, 1), NOW, HOSTILE, HOSTILE, HOSTILE, Place(HOSTILE, 0, 1), None
    )
    facts = Facts(ORDER, HOSTILE, 0, {}, dead_letters=(letter,), notes=(HOSTILE,))
    raw = HOSTILE.encode()
    headers = ((HOSTILE, raw), ("error.code", raw), ("error.path", raw), ("error.message", raw), ("x", None))
    a_letter = record(raw, topic="order-placed-dlt", key=raw, headers=headers)
    listed = LettersFound((ListedLetter(read_letter(a_letter), ORDER, HOSTILE),), 9, {0: 7}, (), HOSTILE)
    orders = (OrderEntry(ORDER, 7, OrderStatus.PENDING, Decimal("1234.50"), NOW),)
    return {
        "overview": overview_page(
            overview(
                rejections=Panel(Rejections((rejection,), None, 1, False)),
                letters=Panel(LetterGroups((group,), 1, True)),
                orders=Panel(None, HOSTILE),
            )
        ),
        "order": order_page(ORDER, explained(facts), topics_trouble=HOSTILE),
        "letter": letter_page(a_letter),
        "letters": letters_page(letter_query([("path", PRINTABLE)]), Panel(listed)),
        "record": record_page(a_letter),
        "orders": orders_page(order_query([]), Panel(OrdersFound(orders, True), HOSTILE)),
        "orders-none": orders_page(order_query([("user", "7")]), Panel(None, HOSTILE)),
        "rejections": rejections_page(
            rejection_query([]), Panel(RejectionsFound((rejection,), 9, {0: 7, 3: 9}, 1, ()))
        ),
        "bytes": letter_page(record(b"\xff\xfe\x00<b>", topic="order-placed-dlt", key=b"\xff")),
        "trouble": trouble_page(HOSTILE, TOP, searched=HOSTILE),
    }


@pytest.mark.parametrize(("name", "html"), hostile_pages().items(), ids=list(hostile_pages()))
def test_what_comes_from_outside_is_text_and_never_markup(name: str, html: str):
    page = Page(html)
    assert not {"script", "b"} & set(page.tags)
    assert page.tags.count("img") == 1, "our own icon"
    assert not [name for name, _ in page.attributes if name.startswith("on") or name == "style"]
    assert "\u202e" not in html
    assert "\x00" not in html
    if name != "bytes":
        assert "<script>alert(1)</script>" in page.text + "".join(v or "" for _, v in page.attributes)
        assert "{{ 7*7 }}" in page.text, "no template either"
    assert page.links, "the parser finds them"
    assert all(LOCAL.fullmatch(link) for link in page.links), page.links


def test_where_there_is_nothing_it_says_so():
    text = Page(overview_page(overview())).text
    assert "No order was rejected, as far back as the topic goes." in text
    assert "There are none." in text
    assert "nothing waits" in text
    assert "not ready" in text
    nobody = Page(overview_page(overview(lag=Panel(lag_of(partition(0, 5), members=()))))).text
    assert "No worker decides these orders: start one" in nobody


def test_a_broken_part_says_why_and_the_others_are_shown():
    rejection = Rejection(ORDER, NOW, ("unknown_user",), ("there was no such user",), False)
    answer = Panel(Rejections((rejection,), None, 0, False))
    text = Page(overview_page(overview(lag=AWAY, letters=AWAY, rejections=answer))).text
    assert text.count("Not shown. Kafka: connection refused") == 2
    assert "there was no such user" in text
    assert "only stock is missing" not in text
    assert "drained in" not in text


def test_of_many_partitions_and_groups_the_greatest_are_shown_and_the_others_counted():
    partitions = [partition(n, lag=n) for n in range(MOST_PARTITIONS + 7)]
    groups = tuple(Group(f"code{n}", "", f"0:{n}", "", 9) for n in range(MOST_GROUPS + 3))
    html = overview_page(
        overview(lag=Panel(lag_of(*partitions)), letters=Panel(LetterGroups(groups, 900, True)))
    )
    text = Page(html).text
    assert "7 partitions with less lag are left out" in text
    assert "And 3 groups more." in text
    assert '<td data-label="partition">6</td>' not in html
    assert '<td data-label="partition">7</td>' in html


def test_the_page_reloads_itself_only_when_asked_to():
    assert "http-equiv" not in overview_page(overview())
    again = overview_page(replace(overview(), refresh=5))
    assert '<meta http-equiv="refresh" content="5">' in again
    assert "stop refreshing" in again


def test_a_lag_that_does_not_shrink_is_not_called_endless():
    def answer(decided: float, placed: float, keeps_up: bool = False) -> str:
        pace = Pace(decided, placed, 60.0 if decided > placed else None, keeps_up)
        return drained(lag_of(partition(0, 90), pace=pace))

    assert [answer(2, 1), answer(1, 2), answer(1, 1), answer(99, 99, True)] == [
        *("1 min 0 s", "lag grows"),
        *("lag stays", "keeps up"),
    ]
    assert drained(lag_of(partition(0))) == "nothing waits"


def decided(**fields: Any) -> Facts:
    reason = Reason(code=ReasonCode.INSUFFICIENT_STOCK, product_id=7, requested=1_200, available=3)
    decision = Decision("rejected", NOW, Place("order-placed", 2, 17), 1, NOW, None, (), (reason,), True)
    return replace(Facts(ORDER, "g", 1, {2: 18}, decision=decision), **fields)


def test_an_order_is_explained_with_the_sentences_of_the_command():
    facts = decided(unread=(Unread("order-rejected", 0, 0, 900),))
    explanation = explained(facts)
    html = order_page(ORDER, explanation)
    text = Page(html).text
    assert explanation.summary in text
    assert "Decision: rejected, may be tried again under a new id" in text
    assert '<td data-label="requested" class="n">1,200</td>' in html
    assert "Not looked at: order-rejected (900 offsets)." in text
    assert f"`order-worker explain --scan all {ORDER}`" in text


def test_without_the_topics_the_ledger_is_reported_and_nothing_is_made_up():
    text = Page(order_page(ORDER, explained_by_rows(decided()), "", "Kafka: no answer in time")).text
    assert "Whether it was published is not known: its records could not be read." in text
    assert "Without the topics. Kafka: no answer in time." in text
    unknown = Page(order_page(ORDER, None, "", "Kafka: no answer in time")).text
    assert "Whether it waits, or is a dead letter, could not be read." in unknown
    neither = Page(order_page(ORDER, None, "the database: gone", "Kafka: no answer in time")).text
    assert "Not shown. the database: gone" in neither


def test_long_texts_are_cut_and_it_is_said():
    long = order_page(ORDER, Explanation(ORDER, explained(decided()).state, "x" * 9_000, decided()))
    assert "x" * 2_000 + "…" in long
    assert "x" * 2_001 not in long
    html = letter_page(record(b"y" * (LONGEST_VALUE + 1), headers=(("h", b"z" * 999),), topic="t"))
    assert "8,193 bytes, the beginning" in Page(html).text
    assert "z" * LONGEST_TEXT + "…" in html
    assert "z" * (LONGEST_TEXT + 1) not in html


@pytest.mark.parametrize(
    ("share", "answer"),
    [(None, ""), (0.0, "0 %"), (0.0001, "< 1 %"), (0.5, "50 %"), (0.9999, "99 %"), (1.0, "100 %")],
)
def test_a_share_is_never_nothing_of_something_nor_all_of_less(share: float | None, answer: str):
    assert percent(share) == answer
