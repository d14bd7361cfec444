"""The metrics and spans of one batch, from its polled records to its committed offsets."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager

from worker.observability.tracing import Span


class BatchInHand:
    """A batch ends once: `finished`, or `given_up` before anything of it was published."""

    def __init__(self, span: Span, note: Callable[[int, float], None]) -> None:
        """`note` is called with the number of records and the seconds, when the batch is finished."""
        self._span = span
        self._note = note
        self._began = time.monotonic()

    def active(self) -> AbstractContextManager[object]:
        """Phases within the block belong to this batch, also those of tasks that it starts."""
        return self._span.active()

    def failed(self, error: BaseException) -> None:
        """The batch is rewound and read again. The error itself is not kept."""
        self._span.failed(error)

    def finished(self, records: int) -> None:
        """The batch is published, or rewound after an attempt to publish it."""
        self._note(records, time.monotonic() - self._began)
        self._span.end()

    def given_up(self) -> None:
        """The batch ends without an attempt to publish it."""
        self._span.end()
