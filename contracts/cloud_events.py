"""Orders as CloudEvents 1.0 in structured mode: the whole event in the value, the order in its `data`.

In binary mode, with the attributes in `ce_` headers, the value is the order itself, as without CloudEvents.
"""

from collections.abc import Iterable
from typing import Annotated, Any, Final, Literal

from pydantic import Field
from pydantic_core import from_json

from contracts.events import Event, OrderPlaced

CONTENT_TYPE: Final = "content-type"
STRUCTURED: Final = b"application/cloudevents+json"

_Text = Annotated[str, Field(min_length=1)]


class StructuredOrder(Event):
    """An event that carries an order. Of its attributes those that CloudEvents requires are looked at."""

    specversion: Literal["1.0"]
    id: _Text
    source: _Text
    type: _Text
    data: OrderPlaced


def is_structured_type(content_type: bytes) -> bool:
    """Whether a `content-type` header says so; its parameters, like `charset=UTF-8`, may be any."""
    return content_type.partition(b";")[0].strip().lower() == STRUCTURED


def is_event(value: bytes, headers: Iterable[tuple[str, bytes | None]]) -> bool:
    """Whether a record's value is a whole event, and not an order that is only labelled as one."""
    labels = [content for name, content in headers if name == CONTENT_TYPE and content]
    return any(map(is_structured_type, labels)) and _event(value) is not None


def attributes(value: bytes | None) -> list[tuple[str, bytes]]:
    """The attributes of an event in structured mode that are texts, as they would be in binary mode.

    Empty where the value is no event.
    """
    event = _event(value or b"") or {}
    texts = {name: text for name, text in event.items() if isinstance(text, str) and name != "data"}
    return [(f"ce_{name}", text.encode()) for name, text in texts.items()]


def _event(value: bytes) -> dict[str, Any] | None:
    try:
        event: Any = from_json(value)
    except ValueError:
        return None
    return event if isinstance(event, dict) and "specversion" in event else None
