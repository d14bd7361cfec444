import json
import sys
from collections.abc import Iterable
from typing import Any, NoReturn

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from contracts.events import DeadLetterCode, OrderedItem, OrderPlaced
from contracts.examples import golden_orders, hostile_values
from contracts.plain_order import PlainOrder, read_usual_order
from worker.core import decode as decode_module
from worker.core.decode import Decoded, Invalid, decode

pytestmark = pytest.mark.guarantee_3

LIMIT = 256 * 1024
ORDER: dict[str, Any] = {
    "order_id": "0d9c1f6e-1b7a-4a35-9a55-2f6a7f0c8e11",
    "user_id": 7,
    "placed_at": "2026-11-23T10:00:00+00:00",
    "items": [
        {"product_id": 11, "quantity": 2, "unit_price": "2.55"},
        {"product_id": 12, "quantity": 1, "unit_price": None},
        {"product_id": 13, "quantity": 5},
    ],
}
VALUE = json.dumps(ORDER).encode()
Pairs = list[tuple[str, Any]]


def decoded(value: bytes) -> Decoded:
    result = decode(value, LIMIT)
    assert isinstance(result, Decoded), result
    return result


def invalid(value: bytes | None) -> Invalid:
    result = decode(value, LIMIT)
    assert isinstance(result, Invalid), result
    return result


def with_field(raw: str) -> bytes:
    """The order with one more field, written exactly so."""
    return VALUE[:-1] + f", {raw}}}".encode()


# --- orders ---


def test_an_order_comes_out_with_its_fingerprint_and_no_unknown_fields() -> None:
    result = decoded(VALUE)
    assert result.order == OrderPlaced.model_validate_json(VALUE).plain()
    assert result.fingerprint == result.order.fingerprint()
    assert result.unknown_fields == 0


def test_a_value_of_exactly_the_limit_is_decoded_and_one_byte_more_is_not() -> None:
    assert isinstance(decode(VALUE, len(VALUE)), Decoded)
    result = decode(VALUE, len(VALUE) - 1)
    assert isinstance(result, Invalid)
    assert result.code is DeadLetterCode.TOO_LARGE


def test_the_quotes_of_a_plain_order_are_exactly_the_expected_ones() -> None:
    usual = {value: read_usual_order(value) for value in golden_orders()}
    plain = [
        (value, read)
        for value, read in usual.items()
        if read is not None and decode_module._count_unknown(value) == 0
    ]
    assert len(plain) > 12
    for value, (_, quotes) in plain:
        assert value.count(b'"') == quotes, value


def mostly(usual: Any, *others: Any) -> st.SearchStrategy[Any]:
    """So that one thing is odd as a rule, and the rest of the order does not hide it."""
    return st.sampled_from([usual] * 4 * len(others) + list(others))


clocks = st.builds(
    "{}T{}{}{}".format,
    mostly("2026-11-23", "1970-01-01", "1969-12-31", "9998-12-31", "9999-01-01", "2026-02-29"),
    mostly("10:00:00", "00:00:00", "23:59:59", "23:59:60", "24:00:00"),
    st.sampled_from(["", ".0", ".000", ".120", ".123", ".000000", ".000001", ".123456", ".1234567"]),
    st.sampled_from(["Z", "z", "+00:00", "-00:00", "+01:30", "-12:00", "+00:75", "+23:59", "+24:00", ""]),
)
ids = mostly(ORDER["order_id"], ORDER["order_id"].upper(), ORDER["order_id"].replace("-", ""))
prices = mostly("2.55", None, "02.55", "0.00", "2.5", "2", "99999999.99", "100000000.00", "-1.00", 2.55)
numbers = mostly(7, 1, 1_000_000, 1_000_001, 2**63 - 1, 2**63, 0, -1, True, 3.0, "7", None)
raw_items = st.fixed_dictionaries(
    {"product_id": numbers, "quantity": numbers}, optional={"unit_price": prices, "note": st.just("x")}
)


@settings(max_examples=400)
@given(
    st.fixed_dictionaries(
        {"order_id": ids, "user_id": numbers, "placed_at": clocks, "items": st.lists(raw_items, max_size=3)},
        optional={"note": st.just("x")},
    )
)
@example(ORDER)
@example({**ORDER, "placed_at": "2026-11-23T10:00:00.120Z"})
@example({**ORDER, "items": ORDER["items"][:1] * 1_001})
def test_a_usual_order_is_read_exactly_as_the_contract_reads_it(document: dict[str, Any]) -> None:
    value = json.dumps(document).encode()
    usual = read_usual_order(value)
    if usual is None:
        return  # the model is asked then
    order, quotes = usual
    expected = OrderPlaced.model_validate_json(value).plain()
    assert order == expected
    assert order.placed_at.utcoffset() == expected.placed_at.utcoffset()
    assert order.fingerprint() == expected.fingerprint()
    known = decode_module._count_unknown(value) == 0
    assert (value.count(b'"') == quotes) == known


@pytest.mark.parametrize("fraction", ["", ".123", ".123456", ".000"])
@pytest.mark.parametrize("zone", ["Z", "+00:00", "+01:00", "-05:30"])
def test_what_most_services_write_is_usual(fraction: str, zone: str) -> None:
    document = {**ORDER, "placed_at": f"2026-11-23T10:00:00{fraction}{zone}"}
    assert read_usual_order(json.dumps(document).encode()) is not None


@pytest.mark.parametrize("price", ["2.50", "2.5", "02.50", "00000002.5"])
def test_equal_prices_are_equal_texts_however_they_were_written(price: str) -> None:
    document = {**ORDER, "items": [{"product_id": 1, "quantity": 1, "unit_price": price}]}
    decoded = decode(json.dumps(document).encode(), LIMIT)
    assert isinstance(decoded, Decoded)
    assert decoded.order.items[0].unit_price == "2.50"


def test_a_plain_order_is_parsed_only_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def parsed_again(value: bytes) -> NoReturn:
        pytest.fail("the slow pass ran for an order that holds nothing unknown")

    monkeypatch.setattr(decode_module, "_count_unknown", parsed_again)
    assert isinstance(decode(VALUE, LIMIT), Decoded)


# --- unknown and repeated fields ---


@pytest.mark.parametrize(
    ("raw", "count"),
    [
        ('"note": null', 1),
        ('"": 1', 1),
        ('"a": 1, "b": "x", "c": [{"d": 1}], "e": {"user_id": 1, "items": []}', 4),
        ('"note": "NaN", "more": "-Infinity"', 2),
        ('"note": "a", "note": "b"', 1),
        ('"note": {"x": 1, "x": 2}', 1),
        ('"note": "\\"user_id\\": 8"', 1),
        ('"User_id": 8', 1),
        ('"note": ' + "9" * 4_000, 1),
        ('"note": ' + "[" * 199 + "]" * 199, 1),
    ],
)
def test_unknown_fields_of_the_order_are_ignored_and_counted(raw: str, count: int) -> None:
    result = decoded(with_field(raw))
    assert result.unknown_fields == count
    assert result.order == decoded(VALUE).order


def test_a_long_number_in_an_unknown_field_costs_no_order_in_any_python() -> None:
    limit = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(640)
    try:
        assert decoded(with_field('"note": ' + "9" * 4_000)).unknown_fields == 1
    finally:
        sys.set_int_max_str_digits(limit)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
unknown_names = (st.text(max_size=8) | st.sampled_from(["NaN", "Infinity", "quantity", "order_id "])).filter(
    lambda name: name not in ORDER
)
unknown_item_names = unknown_names.filter(lambda name: name not in OrderedItem.model_fields)


@given(
    order_extra=st.dictionaries(unknown_names, json_values, max_size=3),
    item_extra=st.dictionaries(unknown_item_names, json_values, max_size=3),
    shuffled=st.randoms(),
    ascii_only=st.booleans(),
)
def test_any_unknown_fields_anywhere_leave_the_order_as_it_is(
    order_extra: dict[str, Any], item_extra: dict[str, Any], shuffled: Any, ascii_only: bool
) -> None:
    items = [
        ORDER["items"][0],
        dict_in_any_order({**ORDER["items"][1], **item_extra}, shuffled),
        ORDER["items"][2],
    ]
    order = dict_in_any_order({**ORDER, "items": items, **order_extra}, shuffled)
    result = decoded(json.dumps(order, ensure_ascii=ascii_only).encode())
    assert result.fingerprint == decoded(VALUE).fingerprint
    assert result.unknown_fields == len(order_extra) + len(item_extra)


def dict_in_any_order(fields: dict[str, Any], shuffled: Any) -> dict[str, Any]:
    pairs = list(fields.items())
    shuffled.shuffle(pairs)
    return dict(pairs)


@pytest.mark.parametrize("name", OrderPlaced.model_fields)
@pytest.mark.parametrize("noise", ["", '"note": "x", '])
def test_a_field_of_the_order_given_twice_is_refused_even_with_the_same_value(name: str, noise: str) -> None:
    result = invalid(with_field(f'{noise}"{name}": {json.dumps(ORDER[name])}'))
    assert result == Invalid(DeadLetterCode.INVALID_ORDER, "is given twice: send it once", name)


@pytest.mark.parametrize("name", OrderedItem.model_fields)
def test_a_field_of_an_item_given_twice_is_refused(name: str) -> None:
    value = VALUE.replace(b'{"product_id": 11', f'{{"{name}": 1, "product_id": 11'.encode())
    assert value != VALUE
    assert invalid(value) == Invalid(
        DeadLetterCode.INVALID_ORDER, "is given twice: send it once", f"items.0.{name}"
    )


# --- what is no order ---


def test_a_missing_value_is_distinguished_from_an_empty_document() -> None:
    assert invalid(None).code is DeadLetterCode.EMPTY_VALUE
    assert invalid(b"").code is DeadLetterCode.EMPTY_VALUE
    assert invalid(b" ").code is DeadLetterCode.NOT_JSON


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
@pytest.mark.parametrize(
    "place", ['"note": {}', '"note": [[{}]]', '"user_id": {}', '"note": "x", "note": {}']
)
def test_numbers_that_json_does_not_have_are_not_json_wherever_they_stand(number: str, place: str) -> None:
    assert invalid(with_field(place.format(number))).code is DeadLetterCode.NOT_JSON


def test_the_first_of_several_problems_is_named_and_the_others_are_counted() -> None:
    value = json.dumps({**ORDER, "user_id": True, "items": [{"product_id": 0, "quantity": 1}, {}]}).encode()
    result = invalid(value)
    assert result.path == "user_id"
    assert result.message == (
        "is true or false; an id is an integer from 1 to 9223372036854775807 (and 3 more)"
    )


def test_wrong_items_are_not_reported_as_too_few_items_as_well() -> None:
    value = json.dumps({**ORDER, "items": [{"product_id": 1, "quantity": 0}]}).encode()
    assert invalid(value).message == "a quantity is an integer from 1 to 1000000"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"items": []}, "should have at least 1 item"),
        ({"items": ORDER["items"] * 334}, "should have at most 1000 items"),
        ({"items": {}}, "should be an array"),
        ({"placed_at": "2026-02-30T10:00:00Z"}, "is not a time that exists: correct day, clock or offset"),
        (
            {"order_id": 7},
            "an order id is a UUID in lower case, like 7f1c0f0e-5a6b-4c9d-8e2f-0123456789ab",
        ),
        ({"placed_at": 7}, "is a number: write text in RFC 3339, like 2026-11-23T10:00:00Z"),
    ],
)
def test_messages_say_what_is_wrong_in_words_of_the_contract(change: dict[str, Any], message: str) -> None:
    assert invalid(json.dumps({**ORDER, **change}).encode()).message == message


def test_message_and_path_are_plain_header_text_for_every_hostile_value() -> None:
    assert_header_text(invalid(hostile.value) for hostile in hostile_values())


@given(st.text(min_size=36, max_size=36))
@example("\x00" * 36)
@example("\n" * 36)
@example("\u202e" * 36)
def test_message_is_plain_header_text_whatever_the_order_id_holds(order_id: str) -> None:
    value = json.dumps({**ORDER, "order_id": order_id}).encode()
    assert_header_text([invalid(value)])


def assert_header_text(results: Iterable[Invalid]) -> None:
    for result in results:
        assert 1 <= len(result.message) <= 300
        assert len(result.path) <= 300
        for text in (result.message, result.path):
            assert text.isascii(), result
            assert text == "" or text.isprintable(), result


# --- never raises, never guesses ---


@given(st.binary(max_size=200))
def test_no_bytes_at_all_make_it_raise(value: bytes) -> None:
    assert isinstance(decode(value, LIMIT), Invalid)


@given(json_values)
def test_no_json_document_makes_it_raise(document: Any) -> None:
    assert isinstance(decode(json.dumps(document).encode(), LIMIT), Invalid)


@settings(max_examples=400)
@given(
    value=st.sampled_from(golden_orders()),
    start=st.integers(0, 10_000),
    length=st.integers(0, 6),
    put=st.binary(max_size=4)
    | st.sampled_from([b'"', b",", b"NaN", b"null", b'"x":1,', b'"quantity":3,', b"e0"]),
)
def test_an_order_with_any_damage_is_refused_or_read_as_any_json_parser_would(
    value: bytes, start: int, length: int, put: bytes
) -> None:
    start %= len(value)
    damaged = value[:start] + put + value[start + length :]
    result = decode(damaged, LIMIT)
    if isinstance(result, Decoded):
        assert_read_as_json(damaged, result)


def assert_read_as_json(value: bytes, result: Decoded) -> None:
    order = known_fields(strict_json(value), OrderPlaced.model_fields)
    assert order["order_id"].lower() == str(result.order.order_id)
    assert order["user_id"] == result.order.user_id
    items = [known_fields(item, OrderedItem.model_fields) for item in order["items"]]
    assert [(i["product_id"], i["quantity"]) for i in items] == [
        (i.product_id, i.quantity) for i in result.order.items
    ]


def strict_json(value: bytes) -> Pairs:
    def refuse(number: str) -> NoReturn:
        raise AssertionError(f"{number} was taken for JSON")

    pairs: Pairs = json.loads(value.decode("utf-8"), object_pairs_hook=list, parse_constant=refuse)
    return pairs


def known_fields(pairs: Pairs, known: Iterable[str]) -> dict[str, Any]:
    fields = [(name, value) for name, value in pairs if name in known]
    assert len(dict(fields)) == len(fields), f"a repeated field was taken: {fields}"
    return dict(fields)


def test_an_unforeseen_error_costs_one_record_only(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(order: PlainOrder) -> NoReturn:
        raise KeyError("a\nbug")

    monkeypatch.setattr(PlainOrder, "fingerprint", fails)
    assert invalid(VALUE) == Invalid(DeadLetterCode.INVALID_ORDER, "KeyError: 'a\\nbug'", "")


@pytest.mark.parametrize("error", [MemoryError, RecursionError])
def test_a_process_in_trouble_does_not_blame_the_record(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(order: PlainOrder) -> NoReturn:
        raise error

    monkeypatch.setattr(PlainOrder, "fingerprint", fails)
    with pytest.raises(error):
        decode(VALUE, LIMIT)


@pytest.mark.parametrize("last", ["99.98", "99.99"])
@pytest.mark.parametrize("written", ["as_usual", "with_an_unknown_field"])
def test_a_total_is_an_order_up_to_its_bound_and_none_a_cent_above(last: str, written: str) -> None:
    prices = {"99999999.99": 9_999, "100.00": 1_000_000, last: 1}
    items = [{"product_id": 1, "quantity": n, "unit_price": price} for price, n in prices.items()]
    more = {"note": "x"} if written == "with_an_unknown_field" else {}
    result = decode(json.dumps({**ORDER, "items": items, **more}).encode(), 300_000)
    if last != "99.99":
        assert isinstance(result, Decoded)
        return
    assert isinstance(result, Invalid)
    assert (result.code, result.path) == (DeadLetterCode.INVALID_ORDER, "items")
    assert result.message == (
        "the lines come to 1,000,000,000,000.00, and the total of an order is at most 999,999,999,999.99"
    )


def test_lines_without_a_price_count_for_nothing_before_the_catalogue_is_asked() -> None:
    items = [{"product_id": 1, "quantity": 1_000_000}] * 1_000
    assert isinstance(decode(json.dumps({**ORDER, "items": items}).encode(), 300_000), Decoded)
