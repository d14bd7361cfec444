"""The canary: how many dead letters are redriven at a time, and when to stop. Pure."""

from collections.abc import Iterator
from itertools import islice, repeat
from typing import Final

LARGEST_STEP: Final = 1_000
_FIRST_STEPS: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500)


def steps() -> Iterator[int]:
    """1, 2, 5, 10, … and 1,000 from then on: what is still broken breaks one letter, not all."""
    yield from _FIRST_STEPS
    yield from repeat(LARGEST_STEP)


def planned(letters: int) -> list[int]:
    """The steps in which so many letters go; of many the first ones, up to the first of 1,000."""
    plan = []
    for size in islice(steps(), len(_FIRST_STEPS) + 1):
        if letters <= 0:
            break
        plan.append(min(size, letters))
        letters -= size
    return plan


def failed_too_often(failed: int, handled: int, max_share: float) -> bool:
    """Whether more than this share of what the run has sent so far has failed again."""
    return failed > max_share * handled
