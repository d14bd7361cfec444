"""A few letters first, and no more of them where too many fail again."""

from itertools import islice

import pytest

from worker.operations.redrive.canary import LARGEST_STEP, failed_too_often, planned, steps


def test_the_steps_grow_from_one_and_end_to_grow_at_a_thousand():
    assert list(islice(steps(), 11)) == [1, 2, 5, 10, 20, 50, 100, 200, 500, LARGEST_STEP, LARGEST_STEP]


@pytest.mark.parametrize(
    ("letters", "plan"), [(0, []), (1, [1]), (3, [1, 2]), (4, [1, 2, 1]), (100, [1, 2, 5, 10, 20, 50, 12])]
)
def test_the_last_step_is_what_is_left(letters: int, plan: list[int]):
    assert planned(letters) == plan


def test_of_very_many_the_first_steps_are_reported():
    assert planned(10_000_000)[-2:] == [500, LARGEST_STEP]


@pytest.mark.parametrize(
    ("failed", "handled", "share", "enough"),
    [
        (0, 0, 0.1, False),
        (1, 1, 0.1, True),
        (1, 10, 0.1, False),
        (2, 10, 0.1, True),
        (1, 1_000, 0.0, True),
        (0, 1_000, 0.0, False),
        (8, 8, 1.0, False),
    ],
)
def test_it_is_enough_above_the_share_and_not_at_it(failed: int, handled: int, share: float, enough: bool):
    assert failed_too_often(failed, handled, share) == enough
