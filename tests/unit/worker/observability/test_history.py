"""The last hour in points: bounded, and without a number that nobody knows."""

import math

import pytest
from prometheus_client import CollectorRegistry, Histogram

from worker.observability.history import (
    INTERVAL_SECONDS,
    KEPT_SECONDS,
    MOST_POINTS,
    Buckets,
    History,
    Point,
    buckets_of,
    quantile,
)

NONE: Buckets = [(0.1, 0), (1.0, 0), (math.inf, 0)]


def test_a_rate_is_what_came_between_two_points_whatever_the_looks_between():
    history = History(lambda: NONE)
    for clock in range(31):
        history.saw(float(clock), published=clock * 10, end=clock * 12, lag=clock * 2)
    assert history.points(30.0) == [
        Point(0.0, 0),
        Point(15.0, 30, 10.0, 12.0),
        Point(30.0, 60, 10.0, 12.0),
    ]


def test_it_keeps_an_hour_and_no_more():
    history = History(lambda: NONE)
    for number in range(2 * MOST_POINTS):
        history.saw(number * INTERVAL_SECONDS, published=0, end=0, lag=0)
    last = (2 * MOST_POINTS - 1) * INTERVAL_SECONDS
    assert len(history.points(last)) == MOST_POINTS
    assert len(history.points(last + KEPT_SECONDS / 2)) == MOST_POINTS // 2 + 1
    assert history.points(last + 2 * KEPT_SECONDS) == []


def test_of_another_log_there_is_no_rate():
    history = History(lambda: NONE)
    history.saw(0.0, published=500, end=500, lag=0)
    history.saw(20.0, published=3, end=4, lag=1)
    assert history.points(20.0)[-1] == Point(20.0, 1, None, None)


def test_times_are_those_of_the_batches_since_the_point_before():
    histogram = Histogram("seconds", "x", buckets=(0.1, 1.0), registry=CollectorRegistry())
    history = History(lambda: buckets_of(histogram))
    histogram.observe(0.5)
    history.saw(0.0, published=0, end=0, lag=0)
    for _ in range(10):
        histogram.observe(0.05)
    history.saw(20.0, published=0, end=0, lag=0)
    history.saw(40.0, published=0, end=0, lag=0)
    first, some, none = history.points(40.0)
    assert (first.half_within_seconds, none.half_within_seconds) == (None, None)
    assert some.half_within_seconds == pytest.approx(0.05)
    assert some.most_within_seconds == pytest.approx(0.099)


@pytest.mark.parametrize(
    ("numbers", "share", "expected"),
    [
        ((0, 0, 0), 0.5, None),
        ((4, 4, 4), 0.5, 0.05),
        ((0, 10, 10), 0.5, 0.55),
        ((5, 10, 10), 0.75, 0.55),
        ((0, 0, 3), 0.5, 1.0),
        ((98, 100, 100), 0.99, 0.55),
    ],
    ids=["none", "first", "second", "both", "above", "most"],
)
def test_a_quantile_lies_within_its_bucket(
    numbers: tuple[int, int, int], share: float, expected: float | None
):
    found = quantile(list(zip((0.1, 1.0, math.inf), numbers, strict=True)), share)
    assert found == (None if expected is None else pytest.approx(expected))
