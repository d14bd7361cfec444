"""One batch as metrics and spans see it: from its records in hand to its offsets committed."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager

from worker.observability.tracing import Span


class BatchInHand:
    """It ends once: `finished`, or `given_up` before anything of it was to be published."""

    def __init__(self, span: Span, note: Callable[[int, float], None]) -> None:
        """`note`: is given the number of records and the seconds, once it is finished."""
        self._span = span
        self._note = note
        self._began = time.monotonic()

    def active(self) -> AbstractContextManager[object]:
        """Phases within the block, also those of tasks that it starts, are this batch's."""
        return self._span.active()

    def failed(self, error: BaseException) -> None:
        """It is set back to come again. The error itself is not kept."""
        self._span.failed(error)

    def finished(self, records: int) -> None:
        """Published, or set back after it was tried."""
        self._note(records, time.monotonic() - self._began)
        self._span.end()

    def given_up(self) -> None:
        """Nothing of it is published now."""
        self._span.end()
