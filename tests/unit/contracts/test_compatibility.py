"""What was promised to publishers and subscribers still holds, and a change that breaks it is named."""

import copy
import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError

from contracts import release
from contracts.compatibility import MODES, Mode, breaks, fields
from contracts.events import DeadLetterCode, OrderRejected, Reason, ReasonCode
from contracts.schema import documents, schemas
from contracts.version import MAJOR, __version__, schema_uri
from tests.support.order_worker import ROOT
from worker.operations.explain.explanation import reason_text

NOW = schemas()
TEXTS = {"description", "title", "examples", "$comment"}
Change = Callable[[dict[str, Any]], object]


def changed(name: str, change: Change) -> dict[str, Any]:
    schema = copy.deepcopy(NOW[name])
    change(schema)
    return schema


def named(name: str, change: Change) -> list[tuple[str, str]]:
    """Field and rule of what the change breaks."""
    return [(one.field, one.rule) for one in breaks(NOW[name], changed(name, change), MODES[name])]


def item(schema: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = schema["$defs"][
        "ConfirmedItem" if "ConfirmedItem" in schema["$defs"] else "OrderedItem"
    ]
    return found


def reason(schema: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = schema["$defs"]["Reason"]
    return found


# --- what is released ---


def test_nothing_that_was_released_is_broken():
    assert release.released(), "no version is released"
    assert release.all_breaks() == {}


def test_a_released_version_has_the_schemas_that_it_was_released_with():
    of_this = release.released().get(__version__)
    bare = {name: without_texts(schema) for name, schema in NOW.items()}
    if of_this is not None:
        released = {name: without_texts(schema) for name, schema in of_this.items()}
        assert released == bare, "raise the version in contracts/version.py, then python -m contracts.release"


def without_texts(schema: Any) -> Any:
    if isinstance(schema, dict):
        return {k: without_texts(v) for k, v in schema.items() if k not in TEXTS}
    return [without_texts(one) for one in schema] if isinstance(schema, list) else schema


def test_every_schema_has_a_mode_and_orders_another_one_than_what_we_publish():
    assert set(MODES) == set(NOW)
    assert {name for name, mode in MODES.items() if mode is Mode.BACKWARD_TRANSITIVE} == {
        "order-placed",
        "order-headers",
    }


def test_what_is_released_is_never_released_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Any):
    monkeypatch.setattr(release, "RELEASED", tmp_path)
    release.main()
    written = {path.name: path.read_text("utf-8") for path in (tmp_path / __version__).iterdir()}
    assert written == documents()
    with pytest.raises(SystemExit, match="is released: raise the version"):
        release.main()


def test_a_breaking_change_is_not_released(monkeypatch: pytest.MonkeyPatch, tmp_path: Any):
    before = changed("order-confirmed", lambda s: s["properties"].update(note={"type": "string"}))
    (tmp_path / "0.9.0").mkdir()
    (tmp_path / "0.9.0" / "order-confirmed.json").write_text(json.dumps(before))
    monkeypatch.setattr(release, "RELEASED", tmp_path)
    with pytest.raises(SystemExit, match=r"order-confirmed since 0\.9\.0: note: removed"):
        release.main()
    assert not (tmp_path / __version__).exists()


# --- what breaks ---


@pytest.mark.parametrize("name", NOW)
def test_a_schema_is_compatible_with_itself(name: str):
    assert named(name, lambda schema: None) == []


BREAKING: dict[str, tuple[str, Change, tuple[str, str]]] = {
    "an order needs a new field": (
        "order-placed",
        lambda s: (s["properties"].update(shop={"type": "string"}), s["required"].append("shop")),
        ("shop", "required"),
    ),
    "an optional field of an order is no more": (
        "order-placed",
        lambda s: item(s)["properties"].pop("unit_price"),
        ("items.*.unit_price", "removed"),
    ),
    "an order takes fewer items": (
        "order-placed",
        lambda s: s["properties"]["items"].update(maxItems=999),
        ("items", "maxItems"),
    ),
    "a quantity begins higher": (
        "order-placed",
        lambda s: item(s)["properties"]["quantity"].update(minimum=2),
        ("items.*.quantity", "minimum"),
    ),
    "a field has another type": (
        "order-placed",
        lambda s: s["properties"].update(user_id={"type": "string"}),
        ("user_id", "type"),
    ),
    "a field that was null may not be null": (
        "order-placed",
        lambda s: item(s)["properties"].update(unit_price={"type": "string"}),
        ("items.*.unit_price", "type"),
    ),
    "a text gets a pattern": (
        "order-placed",
        lambda s: s["properties"]["placed_at"].update(pattern="^2"),
        ("placed_at", "pattern"),
    ),
    "unknown fields are refused": (
        "order-placed",
        lambda s: (s.update(additionalProperties=False), s["properties"].pop("placed_at")),
        ("placed_at", "additionalProperties"),
    ),
    "a field is named that is the publishers' own": (
        "order-placed",
        lambda s: s["properties"].update(x_shop={"type": "string"}),
        ("x_shop", "reserved"),
    ),
    "an outcome lacks a field": (
        "order-confirmed",
        lambda s: (s["properties"].pop("total_amount"), s["required"].remove("total_amount")),
        ("total_amount", "removed"),
    ),
    "a field of an outcome may be missing": (
        "order-confirmed",
        lambda s: s["required"].remove("total_amount"),
        ("total_amount", "required"),
    ),
    "a number of an outcome may be larger": (
        "order-confirmed",
        lambda s: item(s)["properties"]["quantity"].update(maximum=2_000_000),
        ("items.*.quantity", "maximum"),
    ),
    "a field of an outcome may be null": (
        "order-rejected",
        lambda s: s["properties"]["retryable"].update(type=["boolean", "null"]),
        ("retryable", "type"),
    ),
    "the codes become a closed list": (
        "order-rejected",
        lambda s: reason(s)["properties"]["code"].update(enum=["unknown_user"]),
        ("reasons.*.code", "enum"),
    ),
    "a code that is known comes with less": (
        "order-rejected",
        lambda s: reason(s).update(
            {"if": {"properties": {"code": {"const": "unknown_user"}}}, "then": {"required": ["product_id"]}}
        ),
        ("reasons.*.code", "if/then"),
    ),
    "a header is no more": (
        "outcome-headers",
        lambda s: s["properties"].pop("ce_dataschema"),
        ("ce_dataschema", "removed"),
    ),
    "a keyword that nobody has compared yet": (
        "order-confirmed",
        lambda s: s["properties"]["items"].update(uniqueItems=True),
        ("items", "uniqueItems"),
    ),
}


@pytest.mark.parametrize("case", BREAKING)
def test_a_breaking_change_is_named_by_field_and_rule(case: str):
    name, change, expected = BREAKING[case]
    assert expected in named(name, change)


# --- what does not ---


HARMLESS: dict[str, tuple[str, Change]] = {
    "an order may have a new field": (
        "order-placed",
        lambda s: s["properties"].update(coupon={"type": "string"}),
    ),
    "an order takes more items": ("order-placed", lambda s: s["properties"]["items"].update(maxItems=2_000)),
    "an order need not have a field": ("order-placed", lambda s: s["required"].remove("placed_at")),
    "an outcome has a new field": (
        "order-confirmed",
        lambda s: s["properties"].update(note={"type": "string"}),
    ),
    "another description": ("order-rejected", lambda s: s.update(description="other words")),
    "a new code, with what comes with it": (
        "order-rejected",
        lambda s: (
            reason(s)["properties"]["code"]["examples"].append("shop_closed"),
            reason(s)["properties"].update(opens_at={"type": "string", "format": "date-time"}),
            reason(s)
            .setdefault("allOf", [])
            .append(
                {
                    "if": {"properties": {"code": {"const": "shop_closed"}}},
                    "then": {"required": ["opens_at"]},
                }
            ),
        ),
    ),
    "a new header": ("outcome-headers", lambda s: s["properties"].update(tenant={"type": "string"})),
    "how wide a number is": ("order-confirmed", lambda s: s["properties"]["user_id"].update(format="int64")),
}


@pytest.mark.parametrize("case", HARMLESS)
def test_a_change_that_breaks_no_subscriber_is_accepted(case: str):
    name, change = HARMLESS[case]
    assert named(name, change) == []


def test_fields_are_named_with_those_of_items_and_references():
    assert {"items", "items.*.quantity", "placed_at"} <= fields(NOW["order-placed"])
    assert "reasons.*.code" in fields(NOW["order-rejected"])


def test_a_reader_in_python_takes_a_code_of_tomorrow_and_knows_those_of_today():
    event = {
        "order_id": "0d9c1f6e-1b7a-4a35-9a55-2f6a7f0c8e11",
        "user_id": 7,
        "reasons": [{"code": "shop_closed", "opens_at": "2026-11-24T08:00:00Z"}, {"code": "unknown_user"}],
        "retryable": True,
        "placed_at": "2026-11-23T10:00:00Z",
        "decided_at": "2026-11-23T10:00:00Z",
    }
    read = OrderRejected.model_validate_json(json.dumps(event))
    assert [reason.code for reason in read.reasons] == ["shop_closed", ReasonCode.UNKNOWN_USER]
    assert isinstance(read.reasons[1].code, ReasonCode)
    assert [reason_text(reason) for reason in read.reasons] == [
        "shop_closed, which this version does not know",
        "there was no such user",
    ]
    for odd in ("", "Shop closed", "x" * 65):
        with pytest.raises(ValidationError):
            Reason.model_validate_json(json.dumps({"code": odd}))


# --- one version ---


def test_the_version_of_the_events_is_the_first_number_of_the_package():
    assert __version__.startswith(f"{MAJOR}.")
    for name, schema in NOW.items():
        assert schema["$id"] == schema_uri(name) == f"urn:order-worker:{name}:v{MAJOR}"


def test_the_changelog_begins_with_this_version_or_with_what_is_not_released():
    heading = re.search(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert heading
    assert __version__ in heading[1] or heading[1].startswith("Unreleased")


def test_every_code_is_in_its_schema():
    rejected = NOW["order-rejected"]["$defs"]["Reason"]["properties"]["code"]
    letter = NOW["dead-letter-headers"]["properties"]["error.code"]
    assert rejected["examples"] == [code.value for code in ReasonCode]
    assert letter["examples"] == [code.value for code in DeadLetterCode]
    for code in [*ReasonCode, *DeadLetterCode]:
        assert re.fullmatch(rejected["pattern"], code)
        assert re.fullmatch(letter["pattern"], code)
