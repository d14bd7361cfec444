"""Computes what the overview shows from what `sources` has read. Pure."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from aiokafka import ConsumerRecord
from pydantic import ValidationError

from contracts.events import OrderRejected
from worker import __version__
from worker.http.page.cached_query import Panel
from worker.http.page.chart import Chart
from worker.http.page.tail import Tail
from worker.kafka.consuming.unreadable import UnreadableCount
from worker.operations.dead_letters.letter import Group, LetterTally, read_letter
from worker.operations.explain.explanation import reason_text
from worker.operations.lag.measure import GroupLag

LATEST: Final = 10
REASONS_TOLD: Final = 3
LONGEST_WINDOW: Final = timedelta(hours=1)
_SECOND: Final = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Rejection:
    """A rejected order, with its reasons as text."""

    order_id: UUID
    decided_at: datetime
    codes: tuple[str, ...]
    reasons: tuple[str, ...]
    retryable: bool


@dataclass(frozen=True, slots=True)
class Rejections:
    """The newest ones, each order once. All decided after `whole_after` are there; None: all that are kept.

    `strange`: records in the topic that are not rejections. `blind`: some partition could not be read.
    """

    latest: tuple[Rejection, ...]
    whole_after: datetime | None
    strange: int
    blind: bool
    unreadable: tuple[UnreadableCount, ...] = ()


@dataclass(frozen=True, slots=True)
class StoredOrders:
    """How many orders were stored by second: all after `whole_after`; None: all of the window."""

    by_second: tuple[tuple[datetime, int], ...]
    whole_after: datetime | None


@dataclass(frozen=True, slots=True)
class LetterGroups:
    """Dead letters by code and path, of the newest `read`. `cut`: there are older ones."""

    groups: tuple[Group, ...]
    read: int
    cut: bool
    unreadable: tuple[UnreadableCount, ...] = ()


@dataclass(frozen=True, slots=True)
class Count:
    """One row of the outcomes: `share` of all that were decided, 0 to 1, where that is known."""

    name: str
    number: int | None
    share: float | None = None


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What was decided `since`, by all workers. `cut`: less than the hour, because there is too much."""

    since: datetime
    cut: bool
    decided: tuple[Count, ...]
    reasons: tuple[Count, ...]
    troubles: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ThisWorker:
    """The worker that shows the page, and what it counted since it was started."""

    ready: bool
    reasons: Mapping[str, str]
    partitions: tuple[int, ...]
    since: datetime
    counts: tuple[Count, ...]
    version: str = __version__


@dataclass(frozen=True, slots=True)
class Overview:
    """The whole page."""

    time: datetime
    group_id: str
    lag: Panel[GroupLag]
    outcomes: Outcomes
    rejections: Panel[Rejections]
    letters: Panel[LetterGroups]
    this_worker: ThisWorker
    refresh: int
    charts: tuple[Chart, ...] = ()


def rejections(tail: Tail) -> Rejections:
    """The rejections in the tail of their topic. An order whose outcome was published again counts once."""
    rejections: dict[UUID, Rejection] = {}
    oldest: dict[int, datetime] = {}
    strange = 0
    for record in tail.records:
        found = _rejection(record)
        if found is None:
            strange += 1
            continue
        rejections.setdefault(found.order_id, found)
        if record.partition in tail.cut and record.offset >= tail.read_from[record.partition]:
            oldest[record.partition] = min(found.decided_at, oldest.get(record.partition, found.decided_at))
    latest = sorted(rejections.values(), key=lambda r: r.decided_at, reverse=True)
    blind = bool(tail.cut - oldest.keys())
    return Rejections(tuple(latest), max(oldest.values(), default=None), strange, blind, tail.unreadable)


def _rejection(record: ConsumerRecord) -> Rejection | None:
    try:
        event = OrderRejected.model_validate_json(record.value or b"")
    except ValidationError:
        return None
    return Rejection(
        event.order_id,
        event.decided_at.astimezone(UTC),
        tuple(dict.fromkeys(str(reason.code) for reason in event.reasons)),
        tuple(reason_text(reason) for reason in event.reasons[:REASONS_TOLD])
        + ((f"{len(event.reasons) - REASONS_TOLD} more",) if len(event.reasons) > REASONS_TOLD else ()),
        event.retryable,
    )


def stored_orders(by_second: Sequence[tuple[datetime, int]], at_most: int) -> StoredOrders:
    """The newest first. Where there were more than may be counted, the last second is not whole."""
    cut = sum(count for _, count in by_second) >= at_most
    return StoredOrders(tuple(by_second), by_second[-1][0] if cut else None)


def letter_groups(tail: Tail) -> LetterGroups:
    """The newest of each group is its sample."""
    tally = LetterTally()
    for record in tail.records:
        tally.add(read_letter(record))
    return LetterGroups(tuple(tally.groups()), len(tail.records), bool(tail.cut), tail.unreadable)


def outcomes(now: datetime, orders: Panel[StoredOrders], rejected: Panel[Rejections]) -> Outcomes:
    """Confirmed and rejected over the same time, which is as long as both are known, at most an hour."""
    if rejected.value and rejected.value.blind:
        rejected = Panel(None, "the newest rejections are too large, or too strange, to be counted here")
    start = _whole_second(now - LONGEST_WINDOW)
    known = [part.value.whole_after for part in (orders, rejected) if part.value]
    since = max([start, *(_whole_second(time) for time in known if time)])
    confirmed = _confirmed(orders.value, since) if orders.value else None
    shown = _rejected(rejected.value, since) if rejected.value else ()
    refused = len(shown) if rejected.value else None
    return Outcomes(
        since,
        since > start,
        tuple(_with_shares([("confirmed", confirmed), ("rejected", refused)])),
        tuple(_reasons(shown, refused)),
        tuple(dict.fromkeys(part.trouble for part in (orders, rejected) if part.trouble)),
    )


def _whole_second(time: datetime) -> datetime:
    """The next whole second: what the database counts begins at one."""
    return time.replace(microsecond=0) + _SECOND


def _confirmed(orders: StoredOrders, since: datetime) -> int:
    return sum(count for second, count in orders.by_second if second >= since)


def _rejected(rejections: Rejections, since: datetime) -> Sequence[Rejection]:
    return [one for one in rejections.latest if one.decided_at >= since]


def _with_shares(counts: Sequence[tuple[str, int | None]]) -> Iterable[Count]:
    known = [number for _, number in counts if number is not None]
    total = sum(known) if len(known) == len(counts) else 0
    for name, number in counts:
        yield Count(name, number, number / total if total and number is not None else None)


def _reasons(rejected: Iterable[Rejection], total: int | None) -> Iterable[Count]:
    """An order counts once for each kind of reason it has."""
    counted = Counter(code for rejection in rejected for code in rejection.codes)
    for code, number in counted.most_common():
        yield Count(code, number, number / total if total else None)


_COUNTED: Final = (
    ("order_worker_orders_confirmed_total", "confirmed"),
    ("order_worker_orders_rejected_total", "rejected"),
    ("order_worker_orders_duplicate_total", "duplicates, nothing done"),
    ("order_worker_orders_redelivered_total", "published again"),
    ("order_worker_orders_silenced_total", "skipped in a replay"),
    ("order_worker_dead_letters_total", "dead letters"),
    ("order_worker_batches_total", "batches"),
    ("order_worker_batch_reruns_total", "batches run again"),
    ("order_worker_batch_retries_total", "batches rewound"),
)
_ALWAYS: Final = 2  # the first ones are shown even if they are zero


def own_counts(samples: Iterable[tuple[str, float]]) -> tuple[Count, ...]:
    """The sums of the metrics' samples over all labels, by name."""
    totals: Counter[str] = Counter()
    for name, value in samples:
        totals[name] += int(value)
    counts = [(name, totals[sample]) for sample, name in _COUNTED]
    return tuple(Count(name, number) for n, (name, number) in enumerate(counts) if number or n < _ALWAYS)
