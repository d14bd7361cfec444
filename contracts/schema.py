"""The JSON Schemas of events and headers, for publishers and subscribers in any language.

`python -m contracts.schema` writes them into contracts/schemas; a test fails while they are out of date.
"""

import json
from pathlib import Path
from typing import Any, Final

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode

from contracts.events import OrderPlaced
from contracts.header_schemas import Schema, letter_headers, order_headers, outcome_headers
from contracts.topics import TOPICS
from contracts.version import MAJOR, schema_uri

ALL: Final = Path(__file__).parent / "schemas"
FOLDER: Final = ALL / f"v{MAJOR}"
_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"


class _Untitled(GenerateJsonSchema):
    """Without the titles pydantic makes of field names: "Order Id" says no more than order_id."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def schemas() -> dict[str, Schema]:
    """Name to JSON Schema: of the order as it is accepted, of the outcomes as published, of all headers."""
    found = {}
    for topic in TOPICS:
        if topic.event is None:
            continue
        mode: JsonSchemaMode = "validation" if topic.event is OrderPlaced else "serialization"
        schema = topic.event.model_json_schema(mode=mode, schema_generator=_Untitled)
        found[topic.name] = schema if topic.event is OrderPlaced else _without_nulls(schema)
    found |= {
        "order-headers": order_headers(),
        "outcome-headers": outcome_headers(),
        "dead-letter-headers": letter_headers(),
    }
    return {name: {"$schema": _DIALECT, "$id": schema_uri(name), **one} for name, one in found.items()}


def documents() -> dict[str, str]:
    """File name to text of each schema."""
    return {
        f"{name}.json": json.dumps(schema, indent=2, ensure_ascii=False) + "\n"
        for name, schema in schemas().items()
    }


def _without_nulls(schema: Any) -> Any:
    """As outcomes are published: a member that says nothing is left out, and none is null."""
    if isinstance(schema, list):
        return [_without_nulls(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    branches = schema.get("anyOf", [])
    known = [one for one in branches if one != {"type": "null"}]
    if len(known) == 1 and len(branches) == 2:
        rest = {name: value for name, value in schema.items() if name not in ("anyOf", "default")}
        schema = {**known[0], **rest}
    return {name: _without_nulls(value) for name, value in schema.items()}


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, text in documents().items():
        (FOLDER / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
