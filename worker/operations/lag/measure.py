"""Computes how far a group is behind, and how fast it catches up, from measurements of its partitions. Pure.

Lag counts offsets from the next record that a worker will get. A transaction of an upstream service ends
with a marker, which has an offset too and which nobody commits past: by offsets alone a group that has
decided everything would stay one behind in each partition for ever.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from db.worker.skips import SkippedSpan, is_recorded
from worker.kafka.client_names import is_worker
from worker.operations.skip.sentences import Skips, deleted_text, sentences

NO_SKIPS: Final = Skips()
NOTHING_COMMITTED: Final = "nothing committed yet"
NO_LEADER: Final = "no broker leads it, so its lag is not known: start one of those that hold its copies"


@dataclass(frozen=True, slots=True)
class PartitionSnapshot:
    """One partition at a measurement. Offsets are what a reader of committed records can get.

    `next_record` is the offset of the first record from `committed` on; `end` where there is none.
    `hidden` records are stored behind `end`, and wait for a transaction that is still open. `owner` is the id
    of a member. `unreadable`: why the next record cannot be unpacked; empty where it can. `end` is None where
    no broker leads the partition.
    """

    first: int
    end: int | None
    committed: int | None
    next_record: int
    hidden: int
    owner: str | None
    unreadable: str = ""


@dataclass(frozen=True, slots=True)
class MemberName:
    """A member of the group."""

    member_id: str
    client_id: str
    host: str


@dataclass(frozen=True, slots=True)
class Look:
    """All partitions at one time. `clock` is a monotonic one: rates are measured by it."""

    clock: float
    time: datetime
    members: tuple[MemberName, ...]
    places: Mapping[int, PartitionSnapshot]


@dataclass(frozen=True, slots=True)
class Pace:
    """Offsets a second. `seconds_to_drain` is None where the lag grows or stands: never, at this pace.

    `keeps_up`: the lag is what is decided in a second or less, which is no more than what is on its way.
    """

    decided_per_second: float
    arriving_per_second: float
    seconds_to_drain: float | None
    keeps_up: bool


@dataclass(frozen=True, slots=True)
class PartitionLag:
    """One partition's row. `pace` is None as long as there is one look only.

    `lag` is None where nobody can know it: the committed offset lies beyond the end, or no broker leads the
    partition, which then has no `end` either. `hidden` offsets wait behind an open transaction and are no
    lag. `skips` will never be decided.
    """

    partition: int
    committed: int | None
    end: int | None
    lag: int | None
    hidden: int
    owner: str | None
    pace: Pace | None
    remarks: tuple[str, ...]
    skips: tuple[SkippedSpan, ...] = ()


@dataclass(frozen=True, slots=True)
class GroupLag:
    """The whole group. `measured_seconds` is the time between the looks that the paces come from.

    `lag` and `hidden` are of all partitions together; no lag where that of one is not known. `unowned` are
    those that nobody owns while the group has members. `skips_trouble`: why skips are not known.
    `withheld`: of the outcomes that their topic refuses, the first ones and how many more.
    """

    group_id: str
    topic: str
    time: datetime
    members: tuple[MemberName, ...]
    never_committed: bool
    measured_seconds: float
    partitions: tuple[PartitionLag, ...]
    lag: int | None
    hidden: int
    unowned: tuple[int, ...]
    pace: Pace | None
    skips_trouble: str = ""
    withheld: tuple[str, ...] = ()


def lag_of(place: PartitionSnapshot) -> int | None:
    """Everything there is, where nothing was ever committed. None: committed beyond the end, or no leader."""
    if place.end is None:
        return None
    if place.committed is not None and place.committed > place.end + place.hidden:
        return None
    return max(0, place.end - max(place.first, place.next_record))


def without_leader(committed: int | None, owner: str | None) -> PartitionSnapshot:
    """Of a partition whose ends nobody can say."""
    return PartitionSnapshot(first=0, end=None, committed=committed, next_record=0, hidden=0, owner=owner)


def measure(
    group_id: str,
    topic: str,
    looks: Sequence[Look],
    skips: Skips = NO_SKIPS,
    withheld: Sequence[str] = (),
) -> GroupLag:
    """The lag by the last look, the paces from the first look to it."""
    before, last = looks[0], looks[-1]
    seconds = last.clock - before.clock
    strangers = {m.member_id: m.client_id for m in last.members if not is_worker(m.client_id)}
    rows = tuple(
        _row(topic, number, before.places.get(number), place, seconds, skips.of(number), strangers)
        for number, place in sorted(last.places.items())
    )
    lag = _lag_of_all([row.lag for row in rows])
    return GroupLag(
        group_id,
        topic,
        last.time,
        last.members,
        all(place.committed is None for place in last.places.values()),
        seconds,
        rows,
        lag,
        sum(row.hidden for row in rows),
        tuple(row.partition for row in rows if last.members and row.owner is None),
        _pace_of_all(lag, [row.pace for row in rows if row.pace]),
        skips.trouble,
        tuple(withheld),
    )


def _lag_of_all(lags: Sequence[int | None]) -> int | None:
    return None if None in lags else sum(lag or 0 for lag in lags)


def _pace_of_all(lag: int | None, paces: Sequence[Pace]) -> Pace | None:
    if not paces:
        return None
    return _pace(lag, sum(p.decided_per_second for p in paces), sum(p.arriving_per_second for p in paces))


def _row(
    topic: str,
    number: int,
    before: PartitionSnapshot | None,
    place: PartitionSnapshot,
    seconds: float,
    skips: tuple[SkippedSpan, ...],
    strangers: Mapping[str, str],
) -> PartitionLag:
    lag, pace = lag_of(place), None
    if before is not None and before.end is not None and place.end is not None and seconds > 0:
        pace = _pace(lag, _decided(before, place) / seconds, (place.end - before.end) / seconds)
    return PartitionLag(
        number,
        place.committed,
        place.end,
        lag,
        place.hidden,
        place.owner,
        pace,
        (
            *_remarks(f"{topic}:{number}", place, skips),
            *_of_stranger(strangers.get(place.owner or "")),
            *sentences(skips),
        ),
        skips,
    )


def _decided(before: PartitionSnapshot, place: PartitionSnapshot) -> int:
    """Below zero where an operator moved the offset back meanwhile: the lag grows by it."""
    if place.committed is None:
        return 0
    return place.committed - (before.first if before.committed is None else before.committed)


def _pace(lag: int | None, decided: float, arriving: float) -> Pace | None:
    if lag is None:
        return None
    closer = decided - arriving
    drained = 0.0 if not lag else lag / closer if closer > 0 else None
    return Pace(
        round(decided, 1), round(arriving, 1), None if drained is None else round(drained, 1), lag <= decided
    )


def _remarks(selected: str, place: PartitionSnapshot, skips: Sequence[SkippedSpan]) -> list[str]:
    if place.end is None:
        return [NO_LEADER]
    remarks = []
    if place.committed is None and lag_of(place):
        remarks.append(NOTHING_COMMITTED)
    if _is_deleted(place, skips):
        remarks.append(deleted_text(place.committed or 0, place.first))
    if place.committed is not None and lag_of(place) is None:
        remarks.append(_beyond_the_end(selected, place.committed, place.end + place.hidden))
    if place.hidden:
        remarks.append(f"{place.hidden:,} offsets behind a transaction that is still open")
    if place.unreadable:
        remarks.append(
            f"the next record, at offset {place.next_record}, cannot be unpacked ({place.unreadable})"
        )
    return remarks


def _of_stranger(client_id: str | None) -> Iterator[str]:
    if client_id is not None:
        yield (
            f"its owner ({client_id}) is no worker: nobody decides its orders, and what it commits hides"
            " their lag; stop it, or give it a group id of its own"
        )


def _is_deleted(place: PartitionSnapshot, skips: Sequence[SkippedSpan]) -> bool:
    """Something between the committed offset and the first one there is, and no worker has recorded it."""
    if place.committed is None or place.committed >= place.first:
        return False
    return not any(is_recorded([span], span.partition, place.committed, place.first) for span in skips)


def _beyond_the_end(selected: str, committed: int, end: int) -> str:
    return (
        f"committed at {committed:,}, {committed - end:,} offsets beyond the end: the log was cut short (an"
        " old volume, an unclean election), or the topic is a new one, so the lag is unknown;"
        f" `order-worker replay --topic {selected} --to-earliest` shows what is there and not decided"
    )
