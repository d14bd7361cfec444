"""JSON Schemas of the headers of orders, outcomes and dead letters. On Kafka each value is UTF-8 text.

A name may be there that is not named here: readers skip it.
"""

from typing import Any, Final

from contracts.dead_letters import MAX_OFFSET, MAX_PARTITION
from contracts.events import DeadLetterCode
from contracts.topics import ORDER_CONFIRMED, ORDER_REJECTED
from contracts.version import schema_uri

Schema = dict[str, Any]

_UUID: Final[Schema] = {"type": "string", "format": "uuid"}
_TIME: Final[Schema] = {"type": "string", "format": "date-time"}
_NUMBER: Final[Schema] = {"type": "string", "pattern": "^[0-9]{1,19}$"}


def _said(schema: Schema, description: str, **more: Any) -> Schema:
    return {"description": description, **schema, **more}


def _one_of(*texts: str) -> Schema:
    return {"type": "string", "enum": list(texts)}


_PASSED_THROUGH: Final[Schema] = {
    "correlation_id": _said(
        {"type": "string", "minLength": 1, "maxLength": 256},
        "Any text without control characters. The outcome has that of its order.",
    ),
    "traceparent": _said(
        {"type": "string"},
        "W3C Trace Context, of the order. The outcome has that of its order.",
        examples=["00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"],
    ),
    "tracestate": _said({"type": "string", "minLength": 1, "maxLength": 512}, "W3C Trace Context."),
    "baggage": _said({"type": "string", "minLength": 1, "maxLength": 8_192}, "W3C Baggage."),
    "supersedes": _said(_UUID, "The rejected order that this one was placed again for."),
}
_CAUSE: Final[Schema] = {
    name: _said({"type": "string", "minLength": 1, "maxLength": 256}, f"The `{of}` of the order's event.")
    for name, of in (("ce_causationid", "ce_id"), ("ce_causationsource", "ce_source"))
}


def _object(title: str, description: str, properties: Schema, required: list[str]) -> Schema:
    return {
        "title": title,
        "description": description,
        "type": "object",
        "properties": properties,
        **({"required": required} if required else {}),
    }


def order_headers() -> Schema:
    """None is needed, and an odd one never costs an order."""
    return _object(
        "OrderHeaders",
        "All optional. A header that is null, not UTF-8 or too long is as good as not there. CloudEvents"
        " attributes (`ce_…`) may be there.",
        {
            **_PASSED_THROUGH,
            "content-type": _said(
                {"type": "string"},
                "With `application/cloudevents+json` the value may be a whole event of CloudEvents, with the"
                " order in `data`; with any other, or none, it is the order.",
            ),
        },
        [],
    )


def outcome_headers() -> Schema:
    """CloudEvents 1.0 in binary mode, and what is passed through."""
    ours: Schema = {
        "ce_specversion": _one_of("1.0"),
        "ce_id": _said(
            _UUID, "Made of the order id (UUIDv5): the same for every publication. Drop repeats by it."
        ),
        "ce_source": _said(
            {"type": "string", "format": "uri-reference"},
            "With `ce_id` the identity of an event.",
            examples=["/order-worker"],
        ),
        "ce_type": _said(
            {"type": "string"},
            "The kind of event. Pass over a kind that you do not know.",
            examples=[ORDER_CONFIRMED, ORDER_REJECTED],
        ),
        "ce_dataschema": _said(
            {"type": "string", "format": "uri"},
            "The `$id` of the value's schema: it changes with the first number of the version alone.",
            examples=[schema_uri(ORDER_CONFIRMED)],
        ),
        "ce_time": _said(_TIME, "When the order was decided: UTC, as `decided_at`."),
        "ce_subject": _said(_UUID, "The order id, as the key."),
        "content-type": _one_of("application/json"),
    }
    more = {"republished": _said(_one_of("true"), "An operator had the stored outcome published again.")}
    description = "CloudEvents 1.0 in binary mode, then what the order's headers had of these names."
    # Outcomes of before 1.0.0 may still lie in their topics, without `ce_dataschema`.
    required = [name for name in ours if name != "ce_dataschema"]
    return _object("OutcomeHeaders", description, {**ours, **_PASSED_THROUGH, **_CAUSE, **more}, required)


def letter_headers() -> Schema:
    """Those of the record as it came, and these behind them."""
    cut = {
        "value.cut_from_bytes": "The value was too large for this topic: it had so many bytes.",
        "headers.cut": "So many headers of the record were left out.",
        "key.cut_from_bytes": "The key was too large for this topic: it had so many bytes.",
    }
    ours: Schema = {
        "error.code": _said(
            {"type": "string", "pattern": "^[a-z][a-z0-9_]{0,63}$"},
            "Why the record is no order. An open list: a later version may add a code.",
            examples=[code.value for code in DeadLetterCode],
        ),
        "error.message": _said({"type": "string"}, "The reason in words. It may change: do not parse it."),
        "error.path": _said(
            {"type": "string"}, "The field, like `items.0.quantity`; empty where no field is at fault."
        ),
        "source.topic": _said({"type": "string", "pattern": "^[a-zA-Z0-9._-]{1,249}$"}, "Of the record."),
        "source.partition": _said(_NUMBER, f"Of the record: 0 to {MAX_PARTITION}."),
        "source.offset": _said(_NUMBER, f"Of the record: 0 to {MAX_OFFSET}."),
        "source.timestamp": _said(
            {"type": "string", "pattern": "^(-1|[0-9]{1,19})$"},
            "Of the record, in milliseconds since 1970; -1 where it had none.",
        ),
        "failed_at": _said(_TIME, "When the worker read it: UTC."),
    }
    more = {name: _said(_NUMBER, text) for name, text in cut.items()}
    more["key.made_up"] = _said(_one_of("true"), "The record had no key, and this topic takes none without.")
    more["correlation_id"] = _said({"type": "string"}, "Of the record, as it came.")
    more["redrive.id"] = _said({"type": "string"}, "The record had been redriven before it failed.")
    return _object(
        "DeadLetterHeaders",
        "The headers of the record, as they came, then these. Where a name is there twice, the last counts.",
        {**ours, **more},
        list(ours),
    )
