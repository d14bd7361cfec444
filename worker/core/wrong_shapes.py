"""Recognises JSON that is not an order: in an envelope, serialized twice, several at once. Pure."""

import json
from typing import Any, Final

from worker.core.wrong_bytes import is_base64

_ORDER: Final = "order_id"


def remark(document: object, *, is_line: bool) -> str | None:
    """For what is not an object; None: not recognised. `is_line`: it is in the place of one of the items."""
    if isinstance(document, str) and document.lstrip().startswith("{"):
        return "is text that holds JSON: it was serialized twice; send the object itself"
    if isinstance(document, str) and is_base64(document.encode(errors="replace")):
        return "is base64: send the object itself"
    if isinstance(document, list) and not is_line:
        return "is an array: send each order as a record of its own"
    return None


def remark_of_missing(name: str, found: object) -> str | None:
    """For an object that lacks this field; None: the field is simply missing."""
    if not isinstance(found, dict):
        return None
    written = next((key for key in found if key != name and _bare(key) == _bare(name)), None)
    if written is not None:
        return f"is missing; the field is there as {json.dumps(written)}: names are written like {name}"
    if name == "data" and "data_base64" in found:
        return "is missing; the order is in data_base64: write it into data, as JSON"
    return _in_envelope(found) if name == _ORDER else None


def _in_envelope(found: dict[Any, Any]) -> str | None:
    if "specversion" in found:
        return (
            "is missing: the value is a CloudEvents event in structured mode; send it with the header"
            " content-type: application/cloudevents+json, or send its data alone"
        )
    if found.keys() >= {"schema", "payload"}:
        return (
            "is missing: the value is an envelope of Kafka Connect, with schema and payload; set"
            " value.converter.schemas.enable=false"
        )
    inside = next((key for key, one in found.items() if isinstance(one, dict) and _ORDER in one), None)
    if inside is None:
        return None
    return f"is missing; the order is inside {json.dumps(inside)}: send it alone, without an envelope"


def _bare(name: str) -> str:
    return name.replace("_", "").replace("-", "").lower()
