"""Waiting for a condition, never for a time."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(
    condition: Callable[[], T], seconds: float = 30.0, describe: Callable[[], str] = lambda: ""
) -> T:
    """The condition's first true value, polled. After the deadline an AssertionError with the last value."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s; last seen: {value!r} {describe()}")
        time.sleep(0.05)
