"""How far a group is behind, and how fast it comes closer: from looks at its partitions. Pure.

Lag counts offsets from the next record that a worker will get. A transaction of an upstream service ends
with a marker, which has an offset too and which nobody commits past: by offsets alone a group that has
decided everything would stay one behind in each partition for ever.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Place:
    """One partition as a look found it. Offsets are what a reader of committed records can get.

    `next_record` is the offset of the first record from `committed` on; `end` where there is none.
    `hidden` records are stored behind `end`, and wait for a transaction that is still open. `owner` is the id
    of a member.
    """

    first: int
    end: int
    committed: int | None
    next_record: int
    hidden: int
    owner: str | None


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
    places: Mapping[int, Place]


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
    """One partition's row. `pace` is None as long as there is one look only."""

    partition: int
    committed: int | None
    end: int
    lag: int
    owner: str | None
    pace: Pace | None
    remarks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class GroupLag:
    """The whole group. `measured_seconds` is the time between the looks that the paces come from."""

    group_id: str
    topic: str
    time: datetime
    members: tuple[MemberName, ...]
    never_committed: bool
    measured_seconds: float
    partitions: tuple[PartitionLag, ...]
    lag: int
    pace: Pace | None


def lag_of(place: Place) -> int:
    """Everything there is, where nothing was ever committed."""
    return max(0, place.end - max(place.first, place.next_record))


def measure(group_id: str, topic: str, looks: Sequence[Look]) -> GroupLag:
    """The lag by the last look, the paces from the first look to it."""
    before, last = looks[0], looks[-1]
    seconds = last.clock - before.clock
    rows = tuple(
        _row(number, before.places.get(number), place, seconds)
        for number, place in sorted(last.places.items())
    )
    lag = sum(row.lag for row in rows)
    paces = [row.pace for row in rows if row.pace]
    return GroupLag(
        group_id,
        topic,
        last.time,
        last.members,
        all(place.committed is None for place in last.places.values()),
        seconds,
        rows,
        lag,
        _pace(lag, sum(p.decided_per_second for p in paces), sum(p.arriving_per_second for p in paces))
        if paces
        else None,
    )


def _row(number: int, before: Place | None, place: Place, seconds: float) -> PartitionLag:
    lag, pace = lag_of(place), None
    if before is not None and seconds > 0:
        pace = _pace(lag, _decided(before, place) / seconds, (place.end - before.end) / seconds)
    return PartitionLag(number, place.committed, place.end, lag, place.owner, pace, tuple(_remarks(place)))


def _decided(before: Place, place: Place) -> int:
    """Below zero where an operator moved the offset back meanwhile: the lag grows by it."""
    if place.committed is None:
        return 0
    return place.committed - (before.first if before.committed is None else before.committed)


def _pace(lag: int, decided: float, arriving: float) -> Pace:
    closer = decided - arriving
    drained = 0.0 if not lag else lag / closer if closer > 0 else None
    return Pace(
        round(decided, 1), round(arriving, 1), None if drained is None else round(drained, 1), lag <= decided
    )


def _remarks(place: Place) -> list[str]:
    remarks = []
    if place.committed is None and lag_of(place):
        remarks.append("nothing committed yet")
    if place.committed is not None and place.committed < place.first:
        remarks.append(f"{place.first - place.committed:,} offsets were deleted before they were decided")
    if place.committed is not None and place.committed > place.end:
        remarks.append(
            f"committed {place.committed - place.end:,} offsets past the end: is the topic a new one?"
        )
    if place.hidden:
        remarks.append(f"{place.hidden:,} offsets behind a transaction that is still open")
    return remarks
