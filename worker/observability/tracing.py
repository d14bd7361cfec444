"""The interface of spans for batches and their phases. Without tracing, nothing reads a record or a clock.

`worker.observability.opentelemetry_tracing` implements it, imported only if tracing is configured.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final, Protocol

from aiokafka import ConsumerRecord


class Span(Protocol):
    """One batch."""

    def active(self) -> AbstractContextManager[object]:
        """Phases within the block are its children."""

    def failed(self, error: BaseException) -> None:
        """Record the error, without anything from it that a record may hold."""

    def end(self) -> None:
        """It is over."""


class Tracing(Protocol):
    """Makes spans."""

    def batch(self, records: Mapping[Any, Sequence[ConsumerRecord]]) -> Span:
        """A span that begins now, linked to the traces that the records come from."""

    def phase(self, name: str) -> AbstractContextManager[object]:
        """A span of the block, below the batch that is active."""

    def close(self) -> None:
        """Export what is left, within a limit. Blocks."""


class _NoSpan:
    def active(self) -> AbstractContextManager[object]:
        return _NOTHING

    def failed(self, error: BaseException) -> None:
        pass

    def end(self) -> None:
        pass


class _NoTracing:
    def batch(self, records: Mapping[Any, Sequence[ConsumerRecord]]) -> Span:
        return _NO_SPAN

    def phase(self, name: str) -> AbstractContextManager[object]:
        return _NOTHING

    def close(self) -> None:
        pass


_NOTHING: Final = nullcontext()
_NO_SPAN: Final = _NoSpan()
NO_TRACING: Final[Tracing] = _NoTracing()
