"""What the published contract says is what a worker does, to itself and to the orders beside it."""

import json
from importlib.resources import files
from typing import Any
from uuid import UUID, uuid4

from cloudevents.core.bindings.kafka import KafkaMessage, from_binary, to_binary, to_structured
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from jsonschema import Draft202012Validator

from contracts.examples import golden_orders
from contracts.schema import documents
from tests.support.builders import line, order_value
from tests.support.contract_values import is_order_by_schema, odd_orders
from tests.support.order_worker import OrderWorker
from tests.support.promises import Scene
from tests.support.subscriber import Message
from tests.support.worker_process import Workers


def disagreements() -> list[bytes]:
    """Values on which schema and worker once disagreed."""
    lines = (files("tests.unit.contracts") / "disagreements.jsonl").read_text("utf-8").splitlines()
    return [json.loads(one)["value"].encode() for one in lines]


def test_in_one_batch_each_value_is_what_the_schema_says_and_harms_no_neighbour(
    scene: Scene, workers: Workers
):
    scene.shop.stock_up({1: 1_000_000})
    odd = [*odd_orders(), *golden_orders(), *disagreements()]
    neighbours = [uuid4() for _ in odd]
    values: list[bytes | None] = []
    for value, neighbour in zip(odd, neighbours, strict=True):
        values += [order_value(line(1), order_id=neighbour), value]
    scene.place(values, partition=0)
    workers.start()
    scene.wait_until_drained()

    sound = [value for value in odd if is_order_by_schema(value)]
    places = [2 * n + 1 for n, value in enumerate(odd) if not is_order_by_schema(value)]
    letters = {int(m.header("source.offset") or -1): m for m in scene.dead_letters()}
    assert sorted(letters) == places
    for letter in letters.values():
        assert letter.header("error.code") == "invalid_order"
        assert letter.header("error.path")
        assert letter.header("error.message")
    sent = {json.loads(value)["order_id"] for value in sound}
    assert len(sent) == len(sound)
    schemas = {
        kind: Draft202012Validator(json.loads(documents()[f"{kind}.json"]))
        for kind in ("order-confirmed", "order-rejected")
    }
    keys = set()
    for outcome in scene.outcomes():
        assert (outcome.key or b"").decode() == outcome.event["order_id"] == outcome.header("ce_subject")
        assert schemas[str(outcome.header("ce_type"))].is_valid(outcome.event), outcome.event
        keys.add(outcome.event["order_id"])
    assert keys == sent | {str(i) for i in neighbours}, "each id comes back as it was sent"
    scene.assert_promises([*map(UUID, sent), *neighbours], dead_letters=len(places))


def as_event(message: Message) -> Any:
    headers = {name: value for name, value in message.headers if value is not None}
    assert message.value is not None
    return from_binary(KafkaMessage(headers, message.key, message.value), JSONFormat())


def test_orders_of_the_sdk_are_decided_and_their_outcomes_name_them(
    scene: Scene, workers: Workers, order_worker: OrderWorker
):
    scene.shop.stock_up({1: 100})
    traced = ("traceparent", b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01")
    modes: dict[UUID, Any] = {uuid4(): to_binary, uuid4(): to_structured}
    for order_id, mode in modes.items():
        order = json.loads(order_value(line(1), order_id=order_id))
        attributes = {"id": f"e-{order_id}", "source": "/shop", "type": "order-placed", "specversion": "1.0"}
        sent = mode(CloudEvent({**attributes, "datacontenttype": "application/json"}, order), JSONFormat())
        headers = [*sent.headers.items(), traced, ("tracestate", b"a=1"), ("correlation_id", b"c-7")]
        scene.place([sent.value], headers=headers)
    unlabelled = to_structured(CloudEvent({**attributes}, order), JSONFormat()).value
    scene.place([unlabelled])
    workers.start()
    scene.wait_until_drained()

    first = {m.event["order_id"]: m for m in scene.confirmed()}
    assert first.keys() == {str(order_id) for order_id in modes}
    for order_id, message in first.items():
        found = as_event(message)
        assert found.get_extension("causationid") == f"e-{order_id}"
        assert found.get_extension("causationsource") == "/shop"
        assert found.get_data() == message.event
        assert (message.header("tracestate"), message.header("correlation_id")) == ("a=1", "c-7")
    (letter,) = scene.dead_letters()
    assert "content-type: application/cloudevents+json" in str(letter.header("error.message"))

    order_worker.here("republish", "--all", "--execute").done()
    again = [m for m in scene.confirmed() if m.header("republished")]
    assert len(again) == 2
    for message in again:
        kept = [h for h in first[message.event["order_id"]].headers if not h[0].startswith("trace")]
        assert message.headers == [*kept, ("republished", b"true")]
    scene.shop.assert_conserved()
