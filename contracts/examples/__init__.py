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


@dataclass(frozen=True, slots=True)
class Outcome:
    """A record of an outcome topic, and what a correct subscriber does with it.

    `effect` None: nothing happens. `rule` says why.
    """

    name: str
    rule: str
    topic: str
    partition: int
    offset: int
    key: str
    headers: tuple[tuple[str, str | None], ...]
    value: str
    effect: dict[str, Any] | None


def golden_orders() -> list[bytes]:
    """Valid order-placed values; README.md says what is special about each."""
    return (files(__name__) / "orders.jsonl").read_bytes().splitlines()


def example_event(name: str) -> dict[str, Any]:
    """The event shown of `order-confirmed` or `order-rejected`."""
    event: dict[str, Any] = json.loads((files(__name__) / f"{name}.json").read_bytes())
    return event


def hostile_values() -> list[Hostile]:
    """Values no publisher should send, one kind each; too large ones exceed 256 KiB."""
    lines = (files(__name__) / "hostile.jsonl").read_bytes().splitlines()
    return [_hostile(json.loads(line)) for line in lines]


def outcomes() -> list[Outcome]:
    """Records that a subscriber may get, in their order: ordinary ones first, then what surprises."""
    lines = (files(__name__) / "outcomes.jsonl").read_bytes().splitlines()
    return [_outcome(json.loads(line)) for line in lines]


def _outcome(entry: dict[str, Any]) -> Outcome:
    value, effect = (_value(entry) or b"").decode(), entry["effect"]
    if effect and "codes" in effect:
        # Many alike are written as a code and how many.
        codes = [[one] if isinstance(one, str) else [one[0]] * one[1] for one in effect["codes"]]
        effect = {**effect, "codes": [code for some in codes for code in some]}
    place = (entry["topic"], entry["partition"], entry["offset"], entry["key"])
    headers = tuple((name, value) for name, value in entry["headers"])
    return Outcome(entry["name"], entry["rule"], *place, headers, value, effect)


def _hostile(entry: dict[str, Any]) -> Hostile:
    return Hostile(entry["name"], _value(entry), DeadLetterCode(entry["code"]), entry["path"])


def _value(entry: dict[str, Any]) -> bytes | None:
    if "value_base64" in entry:
        return b64decode(entry["value_base64"])
    if "value_parts" in entry:
        return "".join(text * times for text, times in entry["value_parts"]).encode()
    return None if entry["value"] is None else str(entry["value"]).encode()
