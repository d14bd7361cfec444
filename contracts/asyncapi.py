"""The AsyncAPI 3 document: topics, messages, headers, guarantees, for tools and generators of any language.

Names are made for generated code: `OrderPlaced`, `OrderConfirmed`, `OutcomeHeaders`. A worker serves it with
its own topics at `/asyncapi.json`; `python -m contracts.asyncapi` writes the one with the default names.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final, NamedTuple

from contracts import envelope
from contracts.examples import example_event, golden_orders
from contracts.header_schemas import Schema
from contracts.schema import ALL, schemas
from contracts.topics import DEFAULT_PARTITIONS, TOPICS, Topic, Topics
from contracts.version import __version__

FILE: Final = ALL / "asyncapi.json"
_BINDING: Final = "0.5.0"
_DECIDED_AT: Final = datetime(2026, 11, 23, 10, 0, 0, 42_000, tzinfo=UTC)
_TRACED: Final = (
    ("correlation_id", b"checkout-7"),
    ("traceparent", b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
)
_ABOUT: Final = """\
Decides each order once against stock, for good: confirmed whole or rejected whole.

**Every record of the input ends in exactly one of**: an outcome, a duplicate of an order that is decided (the
same order again: nothing is published), or a dead letter.

**Delivery.** Exactly once to subscribers with `isolation.level=read_committed`, under crash, rebalance and
restart of worker, broker and database. Again, byte for byte and under the same `ce_id`, where an operator
republishes (header `republished`) or moves the group's offsets back. So remember `ce_source` and `ce_id`
together with what you did, as long as the topic keeps its records, and drop what you know.

**Order.** Within a partition first come, first served, by offset. Between partitions there is none.

**Partition.** Outcomes and dead letters lie in the partition whose number is that of their order's own,
modulo their topic's count.

**Later versions** may add fields, headers, reason codes and kinds of events. Pass over what you do not know;
a code that you do not know is a reason like any other. What is there stays until the first number of the
version changes.
"""


class _Carried(NamedTuple):
    """What a topic carries, with the names that generated code gets."""

    topic: Topic
    channel: str
    message: str
    headers: str
    title: str
    about: str


_CARRIED: Final = tuple(
    _Carried(topic, *names)
    for topic, names in zip(
        TOPICS,
        (
            (
                *("orderPlaced", "OrderPlaced", "OrderHeaders", "Orders to decide"),
                "Publish orders here, with the order id as the key, so that an order always comes to the"
                " same partition. Headers are optional. Fields whose names begin with `x_` are yours; other"
                " unknown fields are ignored, and a later version may give them a meaning.",
            ),
            (
                *("orderConfirmed", "OrderConfirmed", "OutcomeHeaders", "Confirmed orders"),
                "Stock is taken, order and items are stored. Final.",
            ),
            (
                *("orderRejected", "OrderRejected", "OutcomeHeaders", "Rejected orders"),
                "Nothing is taken; every reason is listed. Final for this order id: try again under a new"
                " one.",
            ),
            (
                *("deadLetters", "DeadLetter", "DeadLetterHeaders", "Dead letters"),
                "Key, value and headers of the record as they came, then headers that say why, and where it"
                " lies in the input. There is no outcome of it. Read those of your own keys, or ask"
                " `/outcomes/{order_id}?wait=PT0S`.",
            ),
        ),
        strict=True,
    )
)


def document(
    topics: Topics | None = None,
    hosts: Sequence[str] = ("127.0.0.1:9092",),
    protocol: str = "kafka",
    group_id: str = "order-worker",
) -> dict[str, Any]:
    """The document for these topics. `hosts`: host:port of brokers; `protocol`: kafka or kafka-secure."""
    names = (topics or Topics()).all
    return {
        "asyncapi": "3.0.0",
        "id": "urn:order-worker",
        "info": {
            "title": "Order worker",
            "version": __version__,
            "description": _ABOUT,
            "license": {"name": "MIT", "url": "https://opensource.org/license/mit"},
        },
        "defaultContentType": "application/json",
        "servers": {
            f"kafka{number or ''}": {"host": host, "protocol": protocol} for number, host in enumerate(hosts)
        },
        "channels": {one.channel: _channel(one, name) for one, name in zip(_CARRIED, names, strict=True)},
        "operations": _operations(group_id),
        "components": {
            "messages": {one.message: _message(one) for one in _CARRIED},
            "schemas": _schemas(),
        },
    }


def _channel(carried: _Carried, name: str) -> dict[str, Any]:
    topic = carried.topic
    return {
        "address": name,
        "title": carried.title,
        "summary": _summary(topic),
        "description": carried.about,
        "messages": {carried.message: {"$ref": f"#/components/messages/{carried.message}"}},
        "bindings": {
            "kafka": {
                "topic": name,
                "partitions": DEFAULT_PARTITIONS,
                "topicConfiguration": {
                    "cleanup.policy": [topic.settings["cleanup.policy"]],
                    "retention.ms": int(topic.settings["retention.ms"]),
                    "max.message.bytes": topic.max_message_bytes,
                },
                "bindingVersion": _BINDING,
            }
        },
    }


def _summary(topic: Topic) -> str:
    return f"{topic.purpose[0].upper()}{topic.purpose[1:]}."


def _operations(group_id: str) -> dict[str, Any]:
    placed, *published = _CARRIED
    group = {"kafka": {"groupId": {"type": "string", "enum": [group_id]}, "bindingVersion": _BINDING}}
    decide = {"summary": "The worker decides each order once.", "bindings": group}
    publish = {"summary": "Published in one Kafka transaction with the offset of the order's record."}
    return {
        "decideOrder": {**_operation("receive", placed), **decide},
        **{f"publish{one.message}": {**_operation("send", one), **publish} for one in published},
    }


def _operation(action: str, carried: _Carried) -> dict[str, Any]:
    channel = f"#/channels/{carried.channel}"
    return {
        "action": action,
        "channel": {"$ref": channel},
        "messages": [{"$ref": f"{channel}/messages/{carried.message}"}],
    }


def _message(carried: _Carried) -> dict[str, Any]:
    is_event = carried.topic.event is not None
    key, value = ("OrderId", carried.message) if is_event else ("DeadLetterKey", "DeadLetterValue")
    return {
        "name": carried.message,
        "title": carried.title,
        "summary": _summary(carried.topic),
        "contentType": "application/json" if is_event else "application/octet-stream",
        "headers": {"$ref": f"#/components/schemas/{carried.headers}"},
        "payload": {"$ref": f"#/components/schemas/{value}"},
        "correlationId": {
            "description": "That of the order; its outcome has it as well.",
            "location": "$message.header#/correlation_id",
        },
        "bindings": {"kafka": {"key": {"$ref": f"#/components/schemas/{key}"}, "bindingVersion": _BINDING}},
        "examples": [_EXAMPLES[carried.message]()],
    }


def _schemas() -> dict[str, Schema]:
    """All by their titles, the parts of events too, each once."""
    found: dict[str, Schema] = {
        "OrderId": {
            "type": "string",
            "format": "uuid",
            "description": "The order id as text: the key of orders and outcomes.",
        },
        "DeadLetterKey": {
            "type": "string",
            "description": "The key of the record as it came; it may have none.",
        },
        "DeadLetterValue": {
            "type": "string",
            "format": "binary",
            "description": "The value of the record as it came: any bytes, or none.",
        },
    }
    for schema in schemas().values():
        for name, part in [*schema.get("$defs", {}).items(), (schema["title"], schema)]:
            bare = {key: value for key, value in part.items() if key not in ("$schema", "$id", "$defs")}
            moved = json.loads(json.dumps(bare).replace('"#/$defs/', '"#/components/schemas/'))
            if found.setdefault(name, moved) != moved:
                raise ValueError(f"two schemas are called {name}")
    return found


def _order() -> dict[str, Any]:
    payload = json.loads(golden_orders()[1])
    return {"name": "order", "headers": {"correlation_id": "checkout-7"}, "payload": payload}


def _outcome(event_type: str) -> dict[str, Any]:
    event = example_event(event_type)
    sent = envelope.outcome_headers(event["order_id"].encode(), event_type, _DECIDED_AT, _TRACED)
    headers = {name: value.decode() for name, value in sent}
    return {"name": event_type, "headers": headers, "payload": event}


def _letter() -> dict[str, Any]:
    order = json.loads(golden_orders()[0])
    order["items"][0]["quantity"] = 0
    headers = {
        "error.code": "invalid_order",
        "error.message": "Input should be greater than or equal to 1",
        "error.path": "items.0.quantity",
        "source.topic": TOPICS[0].name,
        "source.partition": "0",
        "source.offset": "42",
        "source.timestamp": "1795428000000",
        "failed_at": "2026-11-23T10:00:00.042000Z",
    }
    return {"name": "dead-letter", "headers": headers, "payload": json.dumps(order)}


_EXAMPLES: Final[Mapping[str, Callable[[], dict[str, Any]]]] = {
    "OrderPlaced": _order,
    "OrderConfirmed": partial(_outcome, "order-confirmed"),
    "OrderRejected": partial(_outcome, "order-rejected"),
    "DeadLetter": _letter,
}


def main() -> None:
    FILE.write_text(json.dumps(document(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
