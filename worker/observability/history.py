"""The last hour's lag, rates and batch times, for the operator's page: a bounded number of points in memory.

`worker.pipeline.watch` adds the points of the whole group, so there is no timer here. The times of batches
are this worker's.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import isinf
from typing import Final

from prometheus_client import Histogram

KEPT_SECONDS: Final = 3_600.0
INTERVAL_SECONDS: Final = 15.0
MOST_POINTS: Final = int(KEPT_SECONDS / INTERVAL_SECONDS)

Buckets = Sequence[tuple[float, float]]
"""the upper bound of each bucket, the last one infinite, and how many are not above it"""


@dataclass(frozen=True, slots=True)
class Point:
    """The state at one time, and since the previous point. `clock`: monotonic seconds.

    `lag` and the rates are the whole group's, in records. None: not known, or no batch ended.
    """

    clock: float
    lag: int
    decided_per_second: float | None = None
    placed_per_second: float | None = None
    half_within_seconds: float | None = None
    most_within_seconds: float | None = None
    """the 99th percentile of this worker's batch times"""


@dataclass(frozen=True, slots=True)
class _Seen:
    clock: float
    published: int
    end: int
    buckets: Buckets


class History:
    """The points of the last hour. `batch_seconds` gives the times of all batches so far."""

    def __init__(self, batch_seconds: Callable[[], Buckets]) -> None:
        self._batch_seconds = batch_seconds
        self._points: deque[Point] = deque(maxlen=MOST_POINTS)
        self._last: _Seen | None = None

    def saw(self, clock: float, *, published: int, end: int, lag: int) -> None:
        """Of all partitions together; may be called at any rate. `clock`: monotonic seconds."""
        last = self._last
        if last is not None and clock - last.clock < INTERVAL_SECONDS:
            return
        seen = self._last = _Seen(clock, published, end, self._batch_seconds())
        if last is None:
            self._points.append(Point(clock, lag))
            return
        seconds, took = clock - last.clock, _between(last.buckets, seen.buckets)
        self._points.append(
            Point(
                clock,
                lag,
                _rate(published - last.published, seconds),
                _rate(end - last.end, seconds),
                quantile(took, 0.5),
                quantile(took, 0.99),
            )
        )

    def points(self, clock: float) -> Sequence[Point]:
        """The points of the hour before `clock`, the oldest first."""
        return [point for point in self._points if clock - point.clock <= KEPT_SECONDS]


def buckets_of(histogram: Histogram) -> Buckets:
    """As they are now."""
    (family,) = histogram.collect()
    return [(float(s.labels["le"]), s.value) for s in family.samples if s.name.endswith("_bucket")]


def quantile(buckets: Buckets, share: float) -> float | None:
    """The quantile at `share`, interpolated within its bucket; None: there are no values.

    Values above the last finite bound count as that bound.
    """
    total = buckets[-1][1] if buckets else 0
    if not total:
        return None
    wanted = share * total
    for (below, before), (bound, number) in pairwise([(0.0, 0.0), *buckets]):
        if number >= wanted and number > before:
            return below if isinf(bound) else below + (bound - below) * (wanted - before) / (number - before)
    return None


def _between(before: Buckets, now: Buckets) -> Buckets:
    return [(bound, number - was) for (bound, number), (_, was) in zip(now, before, strict=True)]


def _rate(number: int, seconds: float) -> float | None:
    """None: offsets went back, so the log is another one."""
    return number / seconds if number >= 0 else None
