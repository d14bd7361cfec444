"""Limits a command's publishing to an even rate."""

from dataclasses import dataclass
from math import isfinite
from typing import Final

_BATCHES_A_SECOND: Final = 10  # with a rate: more would be small transactions, fewer would be gusts


@dataclass(slots=True)
class Throttle:
    """`rate` a second (None: no limit), evenly. Time that was lost is made up for only if asked to."""

    rate: float | None
    makes_up: bool = False
    _next_at: float = float("-inf")

    def pause(self, count: int, now: float) -> float:
        """The seconds to wait before `count` more may go; `now` is any clock that only moves forward."""
        if self.rate is None:
            return 0.0
        continues = self.makes_up and isfinite(self._next_at)
        begin = self._next_at if continues else max(now, self._next_at)
        self._next_at = begin + count / self.rate
        return max(0.0, begin - now)

    def at_once(self, most: int) -> int:
        """How many go together, so that the rate is even: at least one, at most `most`."""
        if self.rate is None:
            return most
        return max(1, min(most, int(self.rate / _BATCHES_A_SECOND)))
