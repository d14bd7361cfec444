"""The JSON Schemas of the events, for publishers and subscribers in any language.

`python -m contracts.schema` writes them into contracts/schemas; a test fails while they are out of date.
"""

import json
from pathlib import Path
from typing import Any, Final

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode

from contracts.events import OrderPlaced
from contracts.topics import TOPICS

FOLDER: Final = Path(__file__).parent / "schemas"


class _Untitled(GenerateJsonSchema):
    """Without the titles pydantic makes of field names: "Order Id" says no more than order_id."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def documents() -> dict[str, str]:
    """File name to JSON Schema: of the order as it is accepted, of the outcomes as they are published."""
    found = {}
    for topic in TOPICS:
        if topic.event is None:
            continue
        mode: JsonSchemaMode = "validation" if topic.event is OrderPlaced else "serialization"
        schema = {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "$id": f"urn:order-worker:{topic.name}",
            **topic.event.model_json_schema(mode=mode, schema_generator=_Untitled),
        }
        found[f"{topic.name}.json"] = json.dumps(schema, indent=2, ensure_ascii=False) + "\n"
    return found


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name, text in documents().items():
        (FOLDER / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
