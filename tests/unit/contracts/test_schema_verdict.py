"""The published schema, the model and the worker accept the same values; what a schema cannot, it names."""

import json
import os
from importlib.resources import files
from typing import Any

import pytest
from hypothesis import given, settings
from jsonschema import Draft202012Validator

from contracts.events import BEYOND_SCHEMA, OrderRejected, ReasonCode
from contracts.examples import Hostile, golden_orders, hostile_values
from contracts.schema import documents
from tests.support.contract_values import (
    SCHEMA,
    drawn,
    is_order_by_model,
    is_order_by_schema,
    mutated,
    odd_orders,
    written,
)
from worker.core.decode import Decoded, decode

LIMIT = 256 * 1024
# A hundred in the suite; CONTRACT_EXAMPLES=10000 before a release.
EXAMPLES = int(os.environ.get("CONTRACT_EXAMPLES", "100"))
pytestmark = pytest.mark.timeout(180 + EXAMPLES // 5)  # on a busy machine
DISAGREEMENTS = [
    json.loads(line)
    for line in (files("tests.unit.contracts") / "disagreements.jsonl").read_text("utf-8").splitlines()
]
# By names of hostile values: what the schema accepts, and under which name it says that it cannot refuse it.
BEYOND = {
    "given twice": "repeated members",
    "the total is": "total",
    "above 2**53": "numbers with a point",
}


def is_order(value: bytes) -> bool:
    return isinstance(decode(value, LIMIT), Decoded)


def assert_all_say(value: bytes, expected: bool) -> None:
    verdicts = {"worker": is_order(value), "model": is_order_by_model(value)}
    assert verdicts == {"worker": expected, "model": expected}, value


@settings(max_examples=EXAMPLES, deadline=None)
@given(drawn())
def test_what_is_drawn_from_the_schema_is_an_order_for_all(document: Any):
    value = json.dumps(document).encode()
    assert Draft202012Validator(SCHEMA).is_valid(document)
    assert_all_say(value, is_order_by_schema(value))


@settings(max_examples=EXAMPLES, deadline=None)
@given(mutated())
def test_of_an_order_with_odd_fields_all_say_the_same(value: bytes):
    assert_all_say(value, is_order_by_schema(value))


def test_of_each_field_written_oddly_all_say_the_same():
    said = {value: is_order_by_schema(value) for value in odd_orders()}
    assert 60 < sum(said.values()) < len(said) - 60, "many are orders, and many are none"
    for value, expected in said.items():
        assert_all_say(value, expected)


@pytest.mark.parametrize("case", DISAGREEMENTS, ids=lambda case: case["name"])
def test_where_schema_and_worker_once_disagreed_they_agree(case: dict[str, Any]):
    value = case["value"].encode()
    assert is_order_by_schema(value) is case["order"]
    # Also by a validator that knows nothing of this project, and reads numbers as doubles.
    assert Draft202012Validator(SCHEMA).is_valid(json.loads(value)) is case["order"]
    assert_all_say(value, case["order"])


@pytest.mark.parametrize("value", golden_orders())
def test_the_schema_accepts_every_golden_order(value: bytes):
    assert is_order_by_schema(value)


@pytest.mark.parametrize(
    "hostile", [h for h in hostile_values() if h.code == "invalid_order"], ids=lambda hostile: hostile.name
)
def test_the_schema_refuses_what_is_hostile_or_names_why_it_cannot(hostile: Hostile):
    valid = Draft202012Validator(SCHEMA).is_valid(json.loads(hostile.value or b""))
    named = [rule for part, rule in BEYOND.items() if part in hostile.name]
    assert valid == bool(named)
    assert set(named) <= BEYOND_SCHEMA.keys()


def test_the_schema_lists_by_name_what_it_cannot_say():
    for name, rule in BEYOND_SCHEMA.items():
        assert f"{name}: {rule}." in SCHEMA["$comment"]


@pytest.mark.parametrize(("around", "allowed"), [(200, True), (201, False)])
@pytest.mark.parametrize("innermost", ["1", "[]", "{}"])
def test_a_value_lies_inside_as_many_arrays_and_objects_as_are_named(
    innermost: str, around: int, allowed: bool
):
    for begin, end in (("[", "]"), ('{"a":', "}")):
        # The order is the outermost object; an item lies inside the order and the array of items.
        for name, outer in (("note", 1), ("items.0.note", 3)):
            inner = around - outer
            assert_all_say(written({name: begin * inner + innermost + end * inner}), allowed)


@pytest.mark.parametrize("rest", ["", ".0", "e0", "." + "0" * 5_000])
def test_numbers_in_unknown_fields_have_as_many_digits_as_are_named(rest: str):
    assert_all_say(written({"note": "9" * 4_300 + rest}), True)
    assert_all_say(written({"note": "9" * 4_301 + rest}), False)


@pytest.mark.parametrize("code", ReasonCode)
def test_a_reason_without_what_comes_with_its_code_is_none(code: ReasonCode):
    schema = json.loads(documents()["order-rejected.json"])
    rejection = json.loads((files("contracts.examples") / "order-rejected.json").read_bytes())
    (reason,) = (reason for reason in rejection["reasons"] if reason["code"] == code)
    assert OrderRejected.model_validate_json(json.dumps(rejection))
    for name in reason.keys() - {"code"}:
        for changed in ({**reason, name: None}, {k: v for k, v in reason.items() if k != name}):
            assert not Draft202012Validator(schema).is_valid({**rejection, "reasons": [changed]}), changed
    assert Draft202012Validator(schema).is_valid({**rejection, "reasons": [reason]})
    assert not Draft202012Validator(schema).is_valid({**rejection, "reasons": []})
