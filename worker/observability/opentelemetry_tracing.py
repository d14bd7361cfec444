"""Tracing by OpenTelemetry's SDK. Imported only where tracing is configured: the SDK is an extra."""

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Final

from aiokafka import ConsumerRecord
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import Link, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from worker import __version__
from worker.error_texts import reason_of

MOST_LINKS: Final = 32
"""of a batch: what most backends show of a span"""
# A collector that is away must not hold up the end of the worker.
CLOSING_SECONDS: Final = 2.0

_TRACEPARENT: Final = "traceparent"
_propagator: Final = TraceContextTextMapPropagator()


class _BatchSpan:
    def __init__(self, span: trace.Span) -> None:
        self._span = span

    def active(self) -> AbstractContextManager[object]:
        return trace.use_span(self._span, record_exception=False, set_status_on_exception=False)

    def failed(self, error: BaseException) -> None:
        _note(self._span, error)

    def end(self) -> None:
        self._span.end()


class OpenTelemetryTracing:
    """One span for each batch, with links to the traces of its records, and its phases as children."""

    def __init__(self, provider: TracerProvider, topic: str, group_id: str) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("order_worker", __version__)
        self._name = f"process {topic}"
        # As the semantic conventions for messaging have it.
        self._attributes = {
            "messaging.system": "kafka",
            "messaging.operation.name": "process",
            "messaging.operation.type": "process",
            "messaging.destination.name": topic,
            "messaging.consumer.group.name": group_id,
        }

    def batch(self, records: Mapping[Any, Sequence[ConsumerRecord]]) -> _BatchSpan:
        count = sum(map(len, records.values()))
        attributes: dict[str, str | int] = {**self._attributes, "messaging.batch.message_count": count}
        span = self._tracer.start_span(
            self._name, kind=SpanKind.CONSUMER, attributes=attributes, links=links(records.values())
        )
        return _BatchSpan(span)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        with self._tracer.start_as_current_span(
            name, record_exception=False, set_status_on_exception=False
        ) as span:
            try:
                yield
            except BaseException as error:
                _note(span, error)
                raise

    def close(self) -> None:
        # In a thread that nobody waits for: the SDK itself takes up to half a minute.
        closing = threading.Thread(target=self._provider.shutdown, name="tracing", daemon=True)
        closing.start()
        closing.join(CLOSING_SECONDS)


def links(partitions: Iterable[Sequence[ConsumerRecord]]) -> list[Link]:
    """Links to the first `MOST_LINKS` traces in valid `traceparent` headers, each once."""
    found: dict[bytes, Link] = {}
    for records in partitions:
        for record in records:
            for name, value in record.headers:
                if name == _TRACEPARENT and value is not None and value not in found:
                    if link := _link(value):
                        found[value] = link
                    break
            if len(found) == MOST_LINKS:
                return list(found.values())
    return list(found.values())


def _link(traceparent: bytes) -> Link | None:
    carrier = {_TRACEPARENT: traceparent.decode("ascii", "replace")}
    context = trace.get_current_span(_propagator.extract(carrier, Context())).get_span_context()
    return Link(context) if context.is_valid else None


def _note(span: trace.Span, error: BaseException) -> None:
    """Type and first line of an error: its traceback or whole text may hold what a customer ordered."""
    span.set_status(Status(StatusCode.ERROR, f"{type(error).__name__}: {reason_of(error)}"))
