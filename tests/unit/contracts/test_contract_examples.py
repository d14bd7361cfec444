import json
import re
from decimal import Decimal
from importlib.resources import files
from typing import Any

import pytest

from contracts import examples
from contracts.events import DeadLetterCode, OrderConfirmed, OrderPlaced, OrderRejected, ReasonCode
from contracts.examples import Hostile, golden_orders, hostile_values
from contracts.schema import FOLDER, documents
from worker.core.decode import Decoded, Invalid, decode

LIMIT = 256 * 1024
EXAMPLES = files(examples)


# --- orders ---


@pytest.mark.parametrize("value", golden_orders())
def test_every_golden_order_is_accepted(value: bytes) -> None:
    assert isinstance(decode(value, LIMIT), Decoded)


def test_every_golden_order_has_an_id_of_its_own_and_a_row_in_the_readme() -> None:
    ids = {OrderPlaced.model_validate_json(value).order_id for value in golden_orders()}
    rows = re.findall(r"^\| (\d+) \|", (EXAMPLES / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(ids) == len(golden_orders()) >= 12
    assert [int(row) for row in rows] == list(range(1, len(ids) + 1))


@pytest.mark.parametrize("hostile", hostile_values(), ids=lambda hostile: hostile.name)
def test_a_hostile_value_is_refused_with_its_code_and_path(hostile: Hostile) -> None:
    result = decode(hostile.value, LIMIT)
    assert isinstance(result, Invalid), result
    assert (result.code, result.path) == (hostile.code, hostile.path), result.message


def test_hostile_values_are_of_many_kinds_and_cover_every_code_of_a_value() -> None:
    codes = {hostile.code for hostile in hostile_values()}
    not_of_a_value = {
        DeadLetterCode.ORDER_ID_CONFLICT,
        DeadLetterCode.ORDER_ID_TAKEN,
        DeadLetterCode.DATA_ERROR,
        DeadLetterCode.UNREADABLE,
    }
    assert codes == set(DeadLetterCode) - not_of_a_value
    assert len({hostile.name for hostile in hostile_values()}) == len(hostile_values()) >= 60
    assert len({hostile.value for hostile in hostile_values()}) == len(hostile_values())


def test_every_field_is_missing_null_and_wrong_in_some_hostile_value() -> None:
    paths = {re.sub(r"\d+", "0", hostile.path) for hostile in hostile_values()}
    fields = set(OrderPlaced.model_fields) | {
        f"items.0.{name}" for name in ("product_id", "quantity", "unit_price")
    }
    assert fields <= paths


# --- outcomes ---


def test_the_confirmation_shown_is_one_and_adds_up() -> None:
    text = (EXAMPLES / "order-confirmed.json").read_bytes()
    event = OrderConfirmed.model_validate_json(text)
    assert event.model_dump(mode="json") == json.loads(text)
    assert event.total_amount == sum((item.quantity * item.unit_price for item in event.items), Decimal(0))


def test_the_rejection_shown_is_one_and_has_every_reason_once() -> None:
    text = (EXAMPLES / "order-rejected.json").read_bytes()
    event = OrderRejected.model_validate_json(text)
    assert event.model_dump(mode="json", exclude_none=True) == json.loads(text)
    assert [reason.code for reason in event.reasons] == list(ReasonCode)
    assert not event.retryable


# --- schemas ---


def test_the_schemas_checked_in_are_those_of_the_events() -> None:
    for name, text in documents().items():
        assert (FOLDER / name).read_text(encoding="utf-8") == text, "run: python -m contracts.schema"


@pytest.mark.parametrize("name", documents())
def test_every_schema_has_an_id_a_title_and_a_description(name: str) -> None:
    schema = json.loads(documents()[name])
    assert schema["$id"] == f"urn:order-worker:{name.removesuffix('.json')}:v1"
    assert schema["title"]
    assert schema["description"]


def test_the_patterns_of_the_schema_agree_with_the_validation() -> None:
    prices = {
        item["unit_price"]
        for order in map(json.loads, golden_orders())
        for item in order["items"]
        if item.get("unit_price")
    }
    times = {json.loads(value)["placed_at"] for value in golden_orders()}
    assert all(re.fullmatch(price_pattern(), price) for price in prices)
    assert all(re.fullmatch(time_pattern(), time) for time in times)
    refused = [price for price in map(price_of, hostile_values()) if isinstance(price, str)]
    assert len(refused) > 12
    assert not any(re.fullmatch(price_pattern(), price) for price in refused)


def price_pattern() -> str:
    schema = json.loads(documents()["order-placed.json"])
    pattern: str = schema["$defs"]["OrderedItem"]["properties"]["unit_price"]["anyOf"][0]["pattern"]
    return pattern


def time_pattern() -> str:
    pattern: str = json.loads(documents()["order-placed.json"])["properties"]["placed_at"]["pattern"]
    return pattern


def price_of(hostile: Hostile) -> Any:
    """The price that makes this value hostile, if one does."""
    if hostile.path != "items.0.unit_price" or hostile.value is None:
        return None
    return json.loads(hostile.value)["items"][0]["unit_price"]


def test_the_total_pattern_is_that_of_numeric_14_2() -> None:
    pattern = json.loads(documents()["order-confirmed.json"])["properties"]["total_amount"]["pattern"]
    assert re.fullmatch(pattern, "999999999999.99")
    assert not re.fullmatch(pattern, "1000000000000.00")
    assert not re.fullmatch(pattern, "1.5")
