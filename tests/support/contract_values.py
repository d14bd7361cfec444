"""Orders at the edges of the contract: drawn from its schema or written oddly, and who judges them."""

import json
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from typing import Any, Final
from uuid import UUID, uuid5

from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from jsonschema.validators import extend

from contracts.events import OrderedItem, OrderPlaced
from contracts.fields import MAX_TOTAL_CENTS
from contracts.schema import documents

SCHEMA: Final[dict[str, Any]] = json.loads(documents()["order-placed.json"])
_MAX_WITH_POINT: Final = 2**53 - 1
_NAMESPACE: Final = UUID("5f8e3ad4-4b0e-4c52-8f5e-0a4a6d0f6f10")
_ID: Final = "0d9c1f6e-1b7a-4a35-9a55-2f6a7f0c8e11"
_OF_ANY_KIND: Final = [
    "null",
    "true",
    "false",
    '""',
    '"x"',
    "[]",
    "{}",
    "-1",
    "0",
    "1",
    "1.5",
    "1e999",
    '"7"',
]
_NUMBERS: Final = [
    *("7.0", "7e0", "70e-1", "0.7E1", "7.00000", "7.5", "0.0", "-0", "-7", "-7.0", "1e-1", "1E5"),
    *("1000000", "1000001", "1000000.0", "1e6", "1e7", "9007199254740991", "9007199254740991.0"),
    *("9223372036854775806", "9223372036854775807", "9223372036854775808", "9223372036854774784"),
    *("100000000000000000000", "1e18", "1e19", "9007199254740993.0", "4.611686018427388e+18", '"7.0"'),
]
_IDS: Final = [
    *(_ID.upper(), _ID.replace("d", "D", 1), f"urn:uuid:{_ID}", f"{{{_ID}}}", _ID.replace("-", "")),
    *(f"{_ID}\n", f" {_ID}", f"{_ID} ", _ID[:-1], f"{_ID}0", _ID[:-1] + "g", _ID[:-1] + "٣", "0" * 36),
    *("00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff", _ID.replace("-", "_")),
]
_TIMES: Final = [
    *(
        "2026-11-23T10:00:00Z",
        "2026-11-23t10:00:00z",
        "2026-11-23T10:00:00.1Z",
        "2026-11-23T10:00:00.123456789Z",
    ),
    *(
        "2026-11-23T10:00:00.1234567890Z",
        "2026-11-23T10:00:00.Z",
        "2026-11-23T10:00:00,1Z",
        "2026-11-23T10:00Z",
    ),
    *("2026-11-23 10:00:00Z", "2026-11-23T10:00:00", "2026-11-23T10:00:00+0100", "2026-11-23T10:00:00+01"),
    *("2026-11-23T10:00:00-00:00", "2026-11-23T10:00:00+23:59", "2026-11-23T10:00:00+24:00"),
    *(
        "2026-11-23T10:00:00+00:60",
        "2026-11-23T10:00:00Z\n",
        "\n2026-11-23T10:00:00Z",
        " 2026-11-23T10:00:00Z",
    ),
    *("2026-11-23T24:00:00Z", "2026-11-23T23:59:60Z", "2016-12-31T23:59:60Z", "2026-11-23T23:60:00Z"),
    *("2026-00-01T00:00:00Z", "2026-13-01T00:00:00Z", "2026-01-00T00:00:00Z", "2026-01-32T00:00:00Z"),
    *("2026-04-31T00:00:00Z", "2026-06-31T00:00:00Z", "2026-09-31T00:00:00Z", "2026-11-31T00:00:00Z"),
    *("2026-02-29T00:00:00Z", "2024-02-29T00:00:00Z", "2000-02-29T00:00:00Z", "2100-02-29T00:00:00Z"),
    *("2400-02-29T00:00:00Z", "9996-02-29T00:00:00Z", "1972-02-29T00:00:00Z", "9600-02-29T00:00:00Z"),
    *(
        "1969-12-31T23:59:59Z",
        "1969-12-31T23:59:59-12:00",
        "1970-01-01T00:00:00Z",
        "1970-01-01T00:00:00+14:00",
    ),
    *("9998-12-31T23:59:59.999999999Z", "9998-12-31T23:59:59-23:59", "9999-01-01T00:00:00Z"),
    *("9999-01-01T00:00:00+14:00", "0000-02-29T00:00:00Z", "0001-01-01T00:00:00Z", "10000-01-01T00:00:00Z"),
    *("2026-11-23", "1795428000", "2026-W48-1T10:00:00Z", "２026-11-23T10:00:00Z", "2026-11-23T10:00:00 UTC"),
]
_PRICES: Final = [
    *(
        "2.55",
        "2.5",
        "2",
        "02.55",
        "0",
        "0.00",
        "00000002.5",
        "99999999.99",
        "100000000",
        "2.555",
        "2.",
        ".5",
    ),
    *("-1", "-0", "+1", "1e3", "1_0", "2,55", " 2.5", "2.5\n", "٢.٥", "NaN", "Infinity", "0x2", "2.55 EUR"),
]


def _texts(texts: list[str]) -> list[str]:
    return [json.dumps(text) for text in texts]


# What stands for a field, as JSON.
ODD: Final[Mapping[str, list[str]]] = {
    "order_id": [*_texts(_IDS), *_OF_ANY_KIND],
    "user_id": [*_NUMBERS, *_OF_ANY_KIND],
    "placed_at": [*_texts(_TIMES), *_OF_ANY_KIND],
    "items": [*_OF_ANY_KIND, "[null]", "[[]]", "[{}]"],
    "items.0.product_id": [*_NUMBERS, *_OF_ANY_KIND],
    "items.0.quantity": [*_NUMBERS, *_OF_ANY_KIND],
    "items.0.unit_price": [*_texts(_PRICES), *_OF_ANY_KIND],
}
_USUAL: Final = {
    "user_id": "1",
    "placed_at": '"2026-11-23T10:00:00+00:00"',
    "items.0.product_id": "1",
    "items.0.quantity": "1",
    "items.0.unit_price": "null",
}


def odd_orders() -> list[bytes]:
    """An order for each odd value of each field, all else as usual; each has an id of its own."""
    of_fields = [(name, text) for name, texts in ODD.items() for text in texts]
    return [written({name: text}, number) for number, (name, text) in enumerate(of_fields)]


def written(fields: Mapping[str, str], number: int = 0, without: str = "") -> bytes:
    """An order as JSON with these fields so written, and `without` one of them."""
    own_id = json.dumps(str(uuid5(_NAMESPACE, str(number))))
    texts = {"order_id": own_id, **_USUAL, **fields}
    texts.pop(without, None)
    item = _object({name.removeprefix("items.0."): text for name, text in texts.items() if "." in name})
    order = {name: text for name, text in texts.items() if "." not in name}
    if without != "items":
        order.setdefault("items", f"[{item}]")
    return _object(order).encode()


def _object(members: Mapping[str, str]) -> str:
    inside = ",".join(f"{json.dumps(name)}:{text}" for name, text in members.items())
    return f"{{{inside}}}"


@st.composite
def mutated(draw: Callable[..., Any]) -> bytes:
    """An order with one or two fields written oddly, or one of them left out."""
    names = draw(st.lists(st.sampled_from(sorted(ODD)), min_size=1, max_size=2, unique=True))
    fields = {name: draw(st.one_of(*[st.sampled_from(ODD[name])] * 3, _spoilt(ODD[name]))) for name in names}
    without = draw(st.sampled_from([*[""] * 20, *sorted(ODD)]))
    return written(fields, draw(st.integers(0, 2**32)), without)


def _spoilt(texts: list[str]) -> st.SearchStrategy[str]:
    """A text with one character put in, in place of another or between two."""
    whole = st.sampled_from([text for text in texts if text.startswith('"')] or ['"x"'])
    signs = st.sampled_from([*"0123456789abfABFTtZz:.+- \u0661", "\\n", "\\u0000", "\\t"])
    return st.tuples(whole, st.integers(1, 40), st.sampled_from([0, 1]), signs).map(_put)


def _put(spoilt: tuple[str, int, int, str]) -> str:
    text, at, instead, sign = spoilt
    inside = json.loads(text)
    at %= len(inside) + 1
    quoted = [json.dumps(part)[1:-1] for part in (inside[:at], inside[at + instead :])]
    return f'"{quoted[0]}{sign}{quoted[1]}"'


# --- drawn from the schema ---


def drawn(schema: dict[str, Any] = SCHEMA) -> st.SearchStrategy[Any]:
    """Documents that the schema accepts, with unknown members where it allows them."""
    if "$ref" in schema:
        return drawn(SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]])
    if "anyOf" in schema:
        return st.one_of(*map(drawn, schema["anyOf"]))
    return _DRAWN[schema["type"]](schema)


def _drawn_object(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    members = {name: drawn(of) for name, of in schema["properties"].items()}
    required = {name: members[name] for name in schema["required"]}
    optional = {name: of for name, of in members.items() if name not in required}
    return st.fixed_dictionaries(required, optional={**optional, "note": st.text(max_size=5)})


def _drawn_text(schema: dict[str, Any]) -> st.SearchStrategy[str]:
    return st.from_regex(schema["pattern"]).filter(Draft202012Validator(schema).is_valid)


_DRAWN: Final[Mapping[str, Callable[[dict[str, Any]], st.SearchStrategy[Any]]]] = {
    "object": _drawn_object,
    "array": lambda of: st.lists(drawn(of["items"]), min_size=of["minItems"], max_size=3),
    "integer": lambda of: st.integers(of["minimum"], of["maximum"]),
    "string": _drawn_text,
    "null": lambda _: st.none(),
}


# --- the judges ---


def _is_integer(_checker: Any, found: Any) -> bool:
    if isinstance(found, Decimal):
        return found == found.to_integral_value()
    return isinstance(found, int) and not isinstance(found, bool)


# Numbers as they are written, and not as doubles.
_EXACT: Final = extend(
    Draft202012Validator,
    type_checker=Draft202012Validator.TYPE_CHECKER.redefine("integer", _is_integer).redefine(
        "number", lambda _, found: isinstance(found, int | Decimal) and not isinstance(found, bool)
    ),
)(SCHEMA)


def is_order_by_schema(value: bytes) -> bool:
    """What the published schema says, and what it names as beyond it: the total, and numbers with a point."""
    document = json.loads(value, parse_float=Decimal)
    return bool(_EXACT.is_valid(document)) and not any(_beyond_schema(document))


def _beyond_schema(order: dict[str, Any]) -> Iterator[bool]:
    cents = [Decimal(i["unit_price"]) * 100 * i["quantity"] for i in order["items"] if i.get("unit_price")]
    yield sum(cents) > MAX_TOTAL_CENTS
    numbers = [order["user_id"], *(i[name] for i in order["items"] for name in ("product_id", "quantity"))]
    yield any(isinstance(number, Decimal) and number > _MAX_WITH_POINT for number in numbers)


def is_order_by_model(value: bytes) -> bool:
    """The verdict of the model, as Python code gets it."""
    try:
        OrderPlaced.model_validate_json(value)
    except ValueError:  # pydantic's own is one, too
        return False
    return True


assert {name.rpartition(".")[2] for name in ODD} == {*OrderPlaced.model_fields, *OrderedItem.model_fields}
