"""One field of a JSON text is changed, and nothing else."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.operations.redrive.json_edit import Change, ChangeError, parse_change

VALUE = (
    b'{ "order_id":"a", "items" : [{"quantity": 0 , "weight":1.10}, {"quantity":-1}],'
    b'"note":"\\u00fc \xc3\xbc"}'
)


@pytest.mark.parametrize(
    ("text", "old", "expected"),
    [
        ("items.0.quantity=3", "0", VALUE.replace(b": 0 ", b": 3 ")),
        ("items.1={}", '{"quantity":-1}', VALUE.replace(b'{"quantity":-1}', b"{}")),
        (' order_id = "b" ', '"a"', VALUE.replace(b'"a"', b'"b"')),
        (
            "items.*.quantity=3",
            "[0, -1]",
            VALUE.replace(b": 0 ", b": 3 ").replace(b":-1", b":3"),
        ),
        (
            "items.*.weight=2",
            "[1.10, null]",
            VALUE.replace(b"1.10", b"2").replace(b'{"quantity":-1', b'{"weight": 2, "quantity":-1'),
        ),
        (
            "items.1.unit_price=null",
            None,
            VALUE.replace(b'{"quantity":-1', b'{"unit_price": null, "quantity":-1'),
        ),
    ],
)
def test_every_other_byte_stays(text: str, old: str | None, expected: bytes):
    assert parse_change(text).apply(VALUE) == (expected, old)


def test_bytes_that_are_no_text_are_refused_with_the_form():
    with pytest.raises(ChangeError, match="is not JSON; text needs its quotes"):
        parse_change('a="\udcff"')


def test_an_index_that_no_list_has_is_named_however_long_it_is():
    with pytest.raises(ChangeError, match=r"has no items\.9"):
        parse_change(f"items.{'9' * 5_000}.quantity=1").apply(VALUE)


def test_a_field_is_added_to_an_empty_object():
    assert parse_change("a=1").apply(b"{ }") == (b'{"a": 1 }', None)


def test_of_a_name_that_is_given_twice_the_last_one_is_changed():
    assert parse_change("a=3").apply(b'{"a":1,"a":2}') == (b'{"a":1,"a":3}', "2")


@pytest.mark.parametrize(
    ("value", "text", "why"),
    [
        (b'{"items":[]}', "items.0.quantity=1", "has no items.0"),
        (b'{"items":[]}', "items.*.quantity=1", r"has no items\.\*"),
        (b'{"items":{}}', "items.*=1", r"has no items\.\*"),
        (b'{"items":[{"a":1},2]}', "items.*.a=1", "has no items.1.a, and only an object"),
        (b'{"items":[{"a":{}},{}]}', "items.*.a.b=1", "has no items.1.a$"),
        (b'{"a":1}', "a.b=1", "only an object"),
        (b"[1]", "1=2", "only an object"),
        (b"{", "a=1", "is not JSON"),
        (b'{"a":NaN}', "a=1", "is not JSON"),
        (b"\xff", "a=1", "is not JSON"),
        (None, "a=1", "is not JSON"),
        (b"[" * 100_000, "a=1", "is not JSON"),
    ],
)
def test_what_cannot_be_changed_says_why(value: bytes | None, text: str, why: str):
    with pytest.raises(ChangeError, match=why):
        parse_change(text).apply(value)


@pytest.mark.parametrize("text", ["", "a", "=1", "a.=1", "a=", "a=b", "a=NaN", "a=1 2", "a={'b':1}"])
def test_a_change_is_a_field_and_json(text: str):
    with pytest.raises(ChangeError):
        parse_change(text)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.dictionaries(st.sampled_from(["a", "b", "c"]), json_values), json_values, st.sampled_from([None, 1])
)
def test_it_means_what_python_means_by_setting_the_key(
    document: dict[str, Any], new: Any, indent: int | None
):
    value = json.dumps(document, indent=indent, ensure_ascii=False).encode()
    changed, _ = Change("b", json.dumps(new)).apply(value)
    assert json.loads(changed) == {**document, "b": new}
