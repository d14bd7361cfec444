"""Whether a document is as its JSON Schema says, and has no member that the schema does not name."""

import json
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import relevance

from tests.support.order_worker import ROOT


def faults(document: Any, name: str) -> list[str]:
    """What is not as docs/json/<name>.json says; each member that it does not name is a fault as well."""
    schema = _closed(json.loads((ROOT / "docs" / "json" / f"{name}.json").read_text(encoding="utf-8")))
    errors = Draft202012Validator(schema).iter_errors(document)
    return [f"{error.json_path}: {error.message}" for one in errors for error in _deepest(one)]


def _deepest(error: Any) -> list[Any]:
    """What is wrong below an `anyOf`, in the alternative that comes nearest."""
    while error.context:
        error = max(error.context, key=relevance)
    return [error]


def _closed(schema: Any) -> Any:
    """As `additionalProperties: false` wherever a schema names members, but for its conditions."""
    if isinstance(schema, list):
        return [_closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {name: one if name == "allOf" else _closed(one) for name, one in schema.items()}
    return {"additionalProperties": False, **closed} if isinstance(schema.get("properties"), dict) else closed
