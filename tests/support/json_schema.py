"""Whether a document is as its JSON Schema says: the part of JSON Schema that pydantic writes."""

import json
from collections.abc import Iterator
from typing import Any

from tests.support.order_worker import ROOT

_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}
_LOOKED_AT = {
    *("$ref", "additionalProperties", "anyOf", "const", "enum", "items", "prefixItems", "properties"),
    *("required", "type"),
}
_LEFT_ALONE = {
    *("$defs", "$id", "$schema", "default", "description", "examples", "format", "maxItems", "maxLength"),
    *("maximum", "minItems", "minLength", "minimum", "pattern", "title", "exclusiveMinimum"),
}


def faults(document: Any, name: str) -> list[str]:
    """What is not as docs/json/<name>.json says; each member that it does not name is a fault as well."""
    schema = json.loads((ROOT / "docs" / "json" / f"{name}.json").read_text())
    return list(_faults(document, schema, schema.get("$defs", {}), "$"))


def _faults(value: Any, schema: dict[str, Any], shared: dict[str, Any], at: str) -> Iterator[str]:
    unknown = schema.keys() - _LOOKED_AT - _LEFT_ALONE
    assert not unknown, f"{at}: this checker does not know {unknown}"
    if "$ref" in schema:
        yield from _faults(value, shared[schema["$ref"].rpartition("/")[2]], shared, at)
    if "anyOf" in schema:
        tried = [list(_faults(value, one, shared, at)) for one in schema["anyOf"]]
        yield from min(tried, key=len) if all(tried) else []
    if "const" in schema and value != schema["const"]:
        yield f"{at}: {value!r} is not {schema['const']!r}"
    if "enum" in schema and value not in schema["enum"]:
        yield f"{at}: {value!r} is none of {schema['enum']}"
    if "type" in schema and not _is(value, schema["type"]):
        yield f"{at}: {value!r} is no {schema['type']}"
    elif isinstance(value, dict):
        yield from _faults_of_members(value, schema, shared, at)
    elif isinstance(value, list):
        first = schema.get("prefixItems", [])
        for number, item in enumerate(value):
            of = first[number] if number < len(first) else schema.get("items", {})
            yield from _faults(item, of, shared, f"{at}[{number}]")


def _faults_of_members(
    value: dict[str, Any], schema: dict[str, Any], shared: dict[str, Any], at: str
) -> Iterator[str]:
    for name in schema.get("required", ()):
        if name not in value:
            yield f"{at}: lacks {name}"
    named = schema.get("properties")
    others = schema.get("additionalProperties", named is None)
    for name, member in value.items():
        if named and name in named:
            yield from _faults(member, named[name], shared, f"{at}.{name}")
        elif isinstance(others, dict):
            yield from _faults(member, others, shared, f"{at}.{name}")
        elif not others and (named or schema.get("type")):
            yield f"{at}: has {name}, which is not described"


def _is(value: Any, kind: str) -> bool:
    return isinstance(value, _TYPES[kind]) and (kind == "boolean" or not isinstance(value, bool))
