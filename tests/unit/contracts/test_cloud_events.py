"""Orders and outcomes as CloudEvents, written and read by the official SDK."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from cloudevents.core.bindings.kafka import KafkaMessage, from_binary, to_binary, to_structured
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent

from contracts.cloud_events import STRUCTURED
from contracts.envelope import event_id, outcome_headers, passed_through
from contracts.events import DeadLetterCode
from contracts.examples import golden_orders
from worker.core.decode import Decoded, Invalid, decode, decode_former

LIMIT = 256 * 1024
NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
ORDER = json.loads(golden_orders()[0])
LABEL = ("content-type", STRUCTURED)


def event(data: Any = ORDER, **attributes: Any) -> CloudEvent:
    given = {"id": "e-1", "source": "/shop", "type": "order-placed", "specversion": "1.0", **attributes}
    return CloudEvent({**given, "datacontenttype": "application/json"}, data)


def headers_of(message: KafkaMessage) -> list[tuple[str, bytes | None]]:
    return [(name, value) for name, value in message.headers.items()]


def read(message: KafkaMessage) -> Decoded | Invalid:
    return decode(message.value, LIMIT, headers_of(message))


def enveloped(**members: Any) -> bytes:
    envelope = {"specversion": "1.0", "id": "e-1", "source": "/shop", "type": "order-placed", "data": ORDER}
    return json.dumps({name: one for name, one in {**envelope, **members}.items() if one is not ...}).encode()


@pytest.mark.parametrize("mode", [to_binary, to_structured], ids=["binary", "structured"])
def test_an_event_of_the_sdk_is_the_order_in_it_and_the_cause_of_its_outcome(mode: Any):
    message = mode(event(time=NOW, subject="x"), JSONFormat())
    found = read(message)
    assert isinstance(found, Decoded), found
    plain = decode(golden_orders()[0], LIMIT)
    assert isinstance(plain, Decoded)
    assert (found.order, found.fingerprint, found.unknown_fields) == (plain.order, plain.fingerprint, 0)
    assert passed_through(headers_of(message), message.value) == [
        ("ce_causationid", b"e-1"),
        ("ce_causationsource", b"/shop"),
    ]


@pytest.mark.parametrize("value", golden_orders())
def test_every_golden_order_is_one_inside_an_event(value: bytes):
    inside = (
        b'{"specversion":"1.0","id":"1","source":"/s","type":"t","traceparent":"x","data":' + value + b"}"
    )
    found, plain = decode(inside, LIMIT, [LABEL]), decode(value, LIMIT)
    assert isinstance(found, Decoded), found
    assert found == plain


@pytest.mark.parametrize(
    ("members", "path", "says"),
    [
        ({"data": ...}, "data", "is missing"),
        ({"data": ..., "data_base64": "e30="}, "data", "data_base64"),
        ({"data": json.dumps(ORDER)}, "data", "serialized twice"),
        ({"data": {**ORDER, "user_id": "7"}}, "data.user_id", "without quotes"),
        ({"data": {**ORDER, "items": [{"product_id": 1}]}}, "data.items.0.quantity", "is missing"),
        ({"id": ...}, "id", "is missing"),
        ({"source": ""}, "source", "at least 1 character"),
        ({"specversion": "0.3"}, "specversion", "1.0"),
    ],
    ids=lambda case: case if isinstance(case, str) else "",
)
def test_an_event_without_an_order_in_it_is_refused_at_its_place(
    members: Mapping[str, Any], path: str, says: str
):
    found = decode(enveloped(**members), LIMIT, [LABEL])
    assert isinstance(found, Invalid), found
    assert (found.code, found.path) == (DeadLetterCode.INVALID_ORDER, path)
    assert says in found.message


@pytest.mark.parametrize(
    ("once", "twice", "path"),
    [
        (b'"id":', b'"id": "e-1", "id":', "id"),
        (b'"data":', b'"data": {}, "data":', "data"),
        (b'"user_id":', b'"user_id": 7, "user_id":', "data.user_id"),
        (b'"quantity":', b'"quantity": 2, "quantity":', "data.items.0.quantity"),
    ],
    ids=lambda case: case if isinstance(case, str) else "",
)
def test_a_field_that_is_given_twice_in_an_event_is_refused(once: bytes, twice: bytes, path: str):
    found = decode(enveloped().replace(once, twice), LIMIT, [LABEL])
    assert found == Invalid(DeadLetterCode.INVALID_ORDER, "is given twice: send it once", path)


@pytest.mark.parametrize(
    "label", ["application/cloudevents+json; charset=UTF-8", "Application/CloudEvents+JSON ;x=y"]
)
def test_the_label_of_an_event_may_have_parameters_and_capitals(label: str):
    assert isinstance(decode(enveloped(), LIMIT, [("content-type", label.encode())]), Decoded)


@pytest.mark.parametrize("label", [None, b"application/json", b"application/cloudevents-batch+json"])
def test_an_event_that_no_header_labels_is_named_with_what_to_do(label: bytes | None):
    found = decode(enveloped(), LIMIT, [("content-type", label)])
    assert isinstance(found, Invalid)
    assert "content-type: application/cloudevents+json" in found.message


NAMES_A_VERSION = golden_orders()[0].replace(b"{", b'{"note":{"specversion":"1.0"},', 1)


@pytest.mark.parametrize("value", [*golden_orders(), NAMES_A_VERSION])
def test_an_order_that_is_only_labelled_as_an_event_is_an_order_all_the_same(value: bytes):
    assert decode(value, LIMIT, [LABEL]) == decode(value, LIMIT)
    assert passed_through([LABEL], value) == []


def test_an_outcome_is_an_event_to_the_sdk():
    key = ORDER["order_id"].encode()
    order = [("ce_id", b"e-1"), ("ce_source", b"/shop"), ("correlation_id", b"c-1")]
    sent = outcome_headers(key, "order-confirmed", NOW, passed_through(order))
    found = from_binary(KafkaMessage(dict(sent), key, b'{"order_id": "x"}'), JSONFormat())
    assert (found.get_id(), found.get_type()) == (str(event_id(UUID(ORDER["order_id"]))), "order-confirmed")
    assert (found.get_source(), found.get_subject()) == ("/order-worker", ORDER["order_id"])
    assert (found.get_time(), found.get_data()) == (NOW, {"order_id": "x"})
    assert (found.get_extension("causationid"), found.get_extension("causationsource")) == ("e-1", "/shop")


# --- what earlier versions took for an order ---


@pytest.mark.parametrize(
    "former",
    [
        {"order_id": ORDER["order_id"].upper()},
        {"placed_at": "2026-11-23 10:00:00Z"},
        {"placed_at": "1969-12-31T23:30:00-01:00"},
    ],
    ids=["capital letters", "a space for T", "within the bounds in UTC only"],
)
def test_what_an_earlier_version_decided_is_known_and_is_no_order_any_more(former: dict[str, str]):
    value = json.dumps({**ORDER, **former}).encode()
    assert isinstance(decode(value, LIMIT), Invalid)
    known = decode_former(value, LIMIT)
    assert isinstance(known, Decoded)
    assert known.order.key == ORDER["order_id"]


@pytest.mark.parametrize("value", [None, b"{", json.dumps({**ORDER, "user_id": 0}).encode()])
def test_what_was_never_an_order_is_refused_alike(value: bytes | None):
    assert decode_former(value, LIMIT) == decode(value, LIMIT)
