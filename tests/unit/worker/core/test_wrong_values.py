"""What others' tools send is named in the dead letter, with its place and what to send instead."""

import json
import zlib
from base64 import b64encode
from gzip import compress
from time import process_time
from typing import Any
from uuid import UUID

import pytest

from contracts.events import DeadLetterCode
from contracts.examples import golden_orders, hostile_values
from worker.core.decode import Invalid, decode

LIMIT = 256 * 1024
VALUE = golden_orders()[0]
ORDER: dict[str, Any] = json.loads(VALUE)


def refused(value: bytes) -> Invalid:
    found = decode(value, LIMIT)
    assert isinstance(found, Invalid), found
    return found


@pytest.mark.parametrize(
    ("value", "says", "step"),
    [
        (b"\xef\xbb\xbf" + VALUE, "byte order mark", "write UTF-8 without one"),
        (VALUE.decode().encode("utf-16"), "UTF-16", "write UTF-8"),
        (VALUE.decode().encode("utf-16-be"), "UTF-16", "write UTF-8"),
        (VALUE.decode().encode("utf-16-le"), "UTF-16", "write UTF-8"),
        (VALUE.decode().encode("utf-32"), "UTF-32", "write UTF-8"),
        (VALUE.decode().encode("utf-32-be"), "UTF-32", "write UTF-8"),
        (VALUE.decode().encode("utf-32-le"), "UTF-32", "write UTF-8"),
        (VALUE.replace(b"{", b'{"note":"K\xf6ln",', 1), "not UTF-8 at byte 11", "write UTF-8"),
        (b"\x00\x00\x00\x12\x67" + VALUE, "schema id 4711) before JSON", "plain JSON"),
        (b"\x00\x00\x00\x00\x01\x02\x48ab", "schema id 1) before Avro or Protobuf", "plain JSON"),
        (bytes(7) + b"\x02\x07" + VALUE, "schema id 519) before JSON", "plain JSON"),
        (b"\x01" + UUID(int=7).bytes + VALUE, "schema registry (17 bytes) before JSON", "plain JSON"),
        (b"\x03\x00" + UUID(int=7).bytes + VALUE, "schema registry (18 bytes) before JSON", "plain JSON"),
        (compress(VALUE), "gzip", "compression.type"),
        (b"\x28\xb5\x2f\xfd" + VALUE, "zstd", "compression.type"),
        (b"\x04\x22\x4d\x18" + VALUE, "lz4", "compression.type"),
        (zlib.compress(VALUE), "zlib", "compression.type"),
        (b"\x82SNAPPY\x00\x00\x00\x00\x01" + VALUE, "snappy", "compression.type"),
        (b"\xac\xed\x00\x05t\x00\x02{}", "Java object", "write JSON"),
        (b"\x80\x04\x95" + VALUE, "Python pickle", "write JSON"),
        (b"Obj\x01\x04\x14avro.codec\x08null", "Avro file", "write JSON"),
        (b"H" + VALUE[14:50] + b"\x02(2026", "binary, like Avro", "(it begins with 48"),
        (b"\x84\xa8order_id\xd9$", "MessagePack (it begins with 84 A8 6F 72)", "write JSON"),
        (b"d\x00\x00\x00\x02order_id\x00", "is binary", "write JSON"),
        (b64encode(VALUE), "base64", "send the JSON itself"),
        (VALUE.hex().encode(), "trailing characters", "as one JSON object"),
        (b"order_id,user_id\n7,7\n", "expected value", "as one JSON object"),
        (VALUE.replace(b'"user_id":', b'"user_id": None, "note":'), "expected ident", "as one JSON object"),
        (b"<?xml version='1.0'?><order/>", "XML", "write JSON"),
        (repr(ORDER).encode(), "single quotes", "write JSON"),
        (b" \n", "white space only", "send the order"),
        (VALUE + b"\n" + VALUE, "trailing characters", "one document a record"),
        (VALUE[:-1], "EOF", "send it whole"),
        (VALUE[:-1] + b',"note":"\\ud800"}', "hex escape", "its other half"),
        (VALUE[:-1] + b',"note":NaN}', "NaN", "leave the field out"),
    ],
    ids=lambda case: case if isinstance(case, str) else "",
)
def test_bytes_that_are_no_json_are_named(value: bytes, says: str, step: str):
    found = refused(value)
    assert (found.code, found.path) == (DeadLetterCode.NOT_JSON, "")
    assert says in found.message
    assert step in found.message.partition(says)[2] or step in found.message


@pytest.mark.parametrize(
    ("document", "path", "says"),
    [
        ([ORDER], "", "send each order as a record of its own"),
        ([], "", "send each order as a record of its own"),
        (json.dumps(ORDER), "", "serialized twice; send the object itself"),
        (b64encode(VALUE).decode(), "", "is base64: send the object itself"),
        ({**ORDER, "items": [[{}]]}, "items.0", "should be an object"),
        ({"specversion": "1.0", "data": ORDER}, "order_id", "structured mode; send it with the header"),
        ({"schema": {}, "payload": ORDER}, "order_id", "value.converter.schemas.enable=false"),
        ({"order": ORDER, "meta": {}}, "order_id", 'the order is inside "order": send it alone'),
        ({**ORDER, "orderId": "x", "order_id": ...}, "order_id", 'is there as "orderId"'),
        ({**ORDER, "PLACED-AT": "x", "placed_at": ...}, "placed_at", 'is there as "PLACED-AT"'),
        ({**ORDER, "items": [{"productId": 1, "quantity": 1}]}, "items.0.product_id", '"productId"'),
        ({}, "order_id", "is missing"),
    ],
    ids=lambda case: case if isinstance(case, str) else "",
)
def test_a_document_that_is_no_order_is_named(document: Any, path: str, says: str):
    if isinstance(document, dict):
        document = {name: one for name, one in document.items() if one is not ...}
    found = refused(json.dumps(document).encode())
    assert (found.code, found.path) == (DeadLetterCode.INVALID_ORDER, path)
    assert says in found.message


def test_an_event_of_another_version_of_cloudevents_is_named():
    event = {"specversion": "0.3", "id": "1", "source": "/shop", "type": "order-placed", "data": ORDER}
    headers = [("content-type", b"application/cloudevents+json")]
    found = decode(json.dumps(event).encode(), LIMIT, headers)
    assert isinstance(found, Invalid)
    assert (found.path, found.message) == (
        "specversion",
        'should be "1.0", the version of CloudEvents that is read',
    )


@pytest.mark.parametrize(
    ("name", "written", "says"),
    [
        ("order_id", ORDER["order_id"].upper(), f"write it in lower case, {ORDER['order_id']}"),
        ("order_id", f"urn:uuid:{ORDER['order_id']}", "write the UUID alone"),
        ("order_id", f"{{{ORDER['order_id']}}}", "write the UUID alone"),
        ("order_id", ORDER["order_id"].replace("-", ""), "has no hyphens"),
        ("order_id", f"{ORDER['order_id']}\n", "white space"),
        ("order_id", 7, "an order id is a UUID in lower case"),
        ("placed_at", "2026-11-23T10:00Z", "has no seconds: write them"),
        ("placed_at", "2026-11-23T10:00", "has no seconds: write them"),
        ("placed_at", "2026-11-23 10:00:00Z", "has a space between date and time: write T"),
        ("placed_at", "2026-11-23T10:00:00.123", "has no offset: end it with Z"),
        ("placed_at", "2026-11-23T10:00:00+0100", "write it like +01:00"),
        ("placed_at", "2026-11-23T10:00:00,5Z", "write a point"),
        ("placed_at", "2026-11-23T10:00:00.1234567890Z", "write at most nine"),
        ("placed_at", "2026-11-23T24:00:00Z", "write 00:00:00 of the next day"),
        ("placed_at", "2016-12-31T23:59:60Z", "is a leap second: write second 59"),
        ("placed_at", "2026-02-30T10:00:00Z", "is not a time that exists"),
        ("placed_at", "1969-12-31T23:59:59Z", "out of 1970 to 9998"),
        ("placed_at", "9999-01-01T00:00:00Z", "out of 1970 to 9998"),
        ("placed_at", "2026-11-23", "is only a date"),
        ("placed_at", 1795428000, "is a number: write text in RFC 3339"),
        ("placed_at", "2026-11-23T10:00:00+01:00[Europe/Berlin]", "end it with Z or an offset like +01:00"),
        ("placed_at", "2026-11-23T10:00:00 UTC", "end it with Z or an offset like +01:00"),
        ("placed_at", "1795428000", "is a number of seconds"),
        ("user_id", "7", "write the number without quotes; an id is an integer from 1 to"),
        ("user_id", 7.5, "is not a whole number; an id is an integer"),
        ("user_id", True, "is true or false; an id is"),
        ("user_id", 2**53 + 0.0, "above 9007199254740991: write digits only"),
        ("user_id", 2**63, "an id is an integer from 1 to 9223372036854775807"),
    ],
)
def test_a_field_that_is_written_otherwise_is_named(name: str, written: object, says: str):
    found = refused(json.dumps({**ORDER, name: written}).encode())
    assert (found.code, found.path) == (DeadLetterCode.INVALID_ORDER, name)
    assert says in found.message


@pytest.mark.parametrize(
    ("written", "says"),
    [
        (2.55, 'is a number: write text with at most two decimals, like "2.55"'),
        ("2.555", "has more than two decimals: round it to two"),
        ("2,55", "write a point before the decimals"),
        ("1,000.00", "no separator of thousands"),
        ("-1", "is negative"),
        ("100000000.00", "is above 99999999.99"),
        ("2.55 EUR", "a price is a string of digits"),
    ],
)
def test_a_price_that_is_written_otherwise_is_named(written: object, says: str):
    item = {"product_id": 1, "quantity": 1, "unit_price": written}
    found = refused(json.dumps({**ORDER, "items": [item]}).encode())
    assert found.path == "items.0.unit_price"
    assert says in found.message


@pytest.mark.parametrize("name", ["order_id", "placed_at", "unit_price", "user_id"])
def test_a_long_text_is_refused_at_once(name: str):
    """A price of 100,000 commas kept a worker busy until it had lost its partitions, again and again."""
    for piece in (",", "1,", "1.", "1", " ", "2026-11-23T10:00:00,1"):
        text = (piece * 60_000)[:60_000] + "x"
        item = {"product_id": 1, "quantity": 1, "unit_price": text}
        changed = {"items": [item]} if name == "unit_price" else {name: text}
        value = json.dumps({**ORDER, **changed}).encode()
        began = process_time()
        assert refused(value).path.endswith(name)
        assert process_time() - began < 1, piece


def test_a_hundred_thousand_errors_are_not_listed():
    """It took half a second a record, and all records of a batch together longer than a session."""
    items = "{}," * 80_000
    order = f'{{"order_id": 7, "items": [{items}{{}}]}}'
    event = f'{{"specversion": "1.0", "id": "1", "source": "/s", "type": "t", "data": {order}}}'
    for value, path in ((order, "items"), (event, "data.items")):
        found = decode(value.encode(), LIMIT, [("content-type", b"application/cloudevents+json")])
        assert found == Invalid(DeadLetterCode.INVALID_ORDER, "should have at most 1000 items", path)


def test_every_message_of_a_hostile_value_is_one_line_that_fits_a_header():
    for hostile in hostile_values():
        found = decode(hostile.value, LIMIT)
        assert isinstance(found, Invalid)
        assert found.message.isprintable()
        assert len(found.message) < 300, "it is cut"
        assert "?" not in found.message, "all of it is ASCII"
