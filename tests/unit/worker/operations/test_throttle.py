"""How fast a command publishes, by a clock of the test's own."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.operations.throttle import Throttle


class Clock:
    """Moves on by what is waited and by what the work takes."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def publish(self, throttle: Throttle, count: int, work_seconds: float = 0.0) -> float:
        """When they went, after the pause."""
        self.now += throttle.pause(count, self.now)
        went = self.now
        self.now += work_seconds
        return went


def test_without_a_rate_nothing_waits_and_all_that_fits_goes_together() -> None:
    throttle = Throttle(None)
    assert [throttle.pause(500, 1.0) for _ in range(3)] == [0.0, 0.0, 0.0]
    assert throttle.at_once(500) == 500


def test_the_first_go_at_once_and_the_next_when_these_have_had_their_time() -> None:
    clock, throttle = Clock(), Throttle(10)
    assert [clock.publish(throttle, 5) for _ in range(3)] == [1_000.0, 1_000.5, 1_001.0]


def test_time_that_was_lost_is_made_up_for_where_that_is_asked_for() -> None:
    clock, throttle = Clock(), Throttle(10, makes_up=True)
    clock.publish(throttle, 5, work_seconds=0.7)
    assert [clock.publish(throttle, 5) for _ in range(3)] == [1_000.7, 1_001.0, 1_001.5]


def test_time_that_was_lost_is_not_made_up_for() -> None:
    clock, throttle = Clock(), Throttle(10)
    clock.publish(throttle, 5, work_seconds=60)
    assert [clock.publish(throttle, 5) for _ in range(3)] == [1_060.0, 1_060.5, 1_061.0]


@pytest.mark.parametrize(
    ("rate", "together"), [(0.01, 1), (1, 1), (19, 1), (20, 2), (1_000, 100), (9_999, 500)]
)
def test_with_a_rate_they_go_in_small_groups_so_that_it_is_even(rate: float, together: int) -> None:
    assert Throttle(rate).at_once(500) == together


@given(
    rate=st.floats(0.5, 5_000),
    batches=st.lists(st.tuples(st.integers(1, 500), st.floats(0, 2)), min_size=2, max_size=30),
)
def test_whatever_the_work_takes_the_rate_is_never_passed(
    rate: float, batches: list[tuple[int, float]]
) -> None:
    clock, throttle = Clock(), Throttle(rate)
    went = [clock.publish(throttle, count, seconds) for count, seconds in batches]
    for start in range(len(went)):
        for end in range(start + 1, len(went)):
            count = sum(n for n, _ in batches[start:end])
            assert went[end] - went[start] >= count / rate - 1e-6
