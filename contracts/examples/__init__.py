"""Values a publisher may send and values that end as dead letters: for subscribers and for our own tests."""

import json
from base64 import b64decode
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from contracts.events import DeadLetterCode


@dataclass(frozen=True, slots=True)
class Hostile:
    """A value that is no order, and what its dead letter says."""

    name: str
    value: bytes | None
    code: DeadLetterCode
    path: str


def golden_orders() -> list[bytes]:
    """Valid order-placed values; README.md says what is special about each."""
    return (files(__name__) / "orders.jsonl").read_bytes().splitlines()


def hostile_values() -> list[Hostile]:
    """Values no publisher should send, one kind each; too large ones exceed 256 KiB."""
    lines = (files(__name__) / "hostile.jsonl").read_bytes().splitlines()
    return [_hostile(json.loads(line)) for line in lines]


def _hostile(entry: dict[str, Any]) -> Hostile:
    return Hostile(entry["name"], _value(entry), DeadLetterCode(entry["code"]), entry["path"])


def _value(entry: dict[str, Any]) -> bytes | None:
    if "value_base64" in entry:
        return b64decode(entry["value_base64"])
    if "value_parts" in entry:
        return "".join(text * times for text, times in entry["value_parts"]).encode()
    return None if entry["value"] is None else str(entry["value"]).encode()
