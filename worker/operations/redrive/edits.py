"""What is changed of letters before they are sent: the same of all, or of each what a file says. Pure."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from contracts.events import OrderedItem, OrderPlaced
from db.worker.redrive_records import Claim, Redrive
from worker.operations.dead_letters.letter import LetterPlace, general, parse_place
from worker.operations.redrive.json_edit import Change

_FIELDS: Final = {*OrderPlaced.model_fields, *(f"items.*.{name}" for name in OrderedItem.model_fields)}
_EVENT: Final = "data."  # where a CloudEvents event in structured mode has its order
_MAX_OLD_VALUE: Final = 10_000  # characters of what stood there before


class Edited(NamedTuple):
    """One field that was changed, as JSON texts. An empty `field` is the whole value, `old` None: added."""

    field: str
    old: str | None
    new: str


class FileLine(NamedTuple):
    """What a line of a file says of one letter."""

    number: int
    changes: tuple[Change, ...]


@dataclass(frozen=True, slots=True)
class Edits:
    """The same changes for all letters, or those of each from a file."""

    of_all: tuple[Change, ...] = ()
    file: str = ""
    lines: Mapping[LetterPlace, FileLine] = field(default_factory=dict)

    def of(self, place: LetterPlace) -> tuple[Change, ...]:
        line = self.lines.get(place)
        return line.changes if line else self.of_all

    def named(self, place: LetterPlace) -> str:
        """The letter, and where in the file its line stands."""
        line = self.lines.get(place)
        return f"{self.file}:{line.number}: {place}" if line else str(place)

    def located(self, text: str) -> str:
        """What is said of a letter, PARTITION:OFFSET: …, with where in the file its line stands."""
        place = parse_place(":".join(text.split(":")[:2]))
        line = self.lines.get(place) if place else None
        return f"{self.file}:{line.number}: {text}" if line else text


def apply(changes: Sequence[Change], value: bytes | None) -> tuple[bytes | None, list[Edited]]:
    """The value with all of them, one after the other. Raises ChangeError where there is no such field."""
    edited: list[Edited] = []
    for change in changes:
        value, old = change.apply(value, _may_add)
        edited.append(Edited(change.field, old if old is None else old[:_MAX_OLD_VALUE], change.new_value))
    return value, edited


def new_key(changes: Sequence[Change]) -> bytes | None:
    """Of a new order id, which is the record's key; None: the key stays."""
    for change in reversed(changes):
        if _is_order_id(change):
            return _key(json.loads(change.new_value))
        if not change.field and isinstance(value := json.loads(change.new_value), dict):
            order = value if "order_id" in value else value.get("data")
            return _key(order.get("order_id", "") if isinstance(order, dict) else "")
    return None


def _key(order_id: object) -> bytes:
    # JSON may escape half a character, which makes it no order id: the check of the new value says so.
    return str(order_id).encode(errors="replace")


def changes_order_id(changes: Sequence[Change]) -> bool:
    return any(map(_is_order_id, changes))


def _is_order_id(change: Change) -> bool:
    return change.field.removeprefix(_EVENT) == "order_id"


def with_edits(claim: Claim, edited: Sequence[Edited]) -> Claim:
    """The claim with what is to be stored of them: one field has columns of its own."""
    if not edited:
        return claim
    if len(edited) == 1 and edited[0].field:
        name, old, new = edited[0]
        return claim._replace(changed_field=name, old_value=old, new_value=new)
    return claim._replace(changes=json.dumps(edited, ensure_ascii=False))


def edits_of(redrive: Redrive) -> list[Edited]:
    """What was stored."""
    if redrive.changes:
        return [Edited(*one) for one in json.loads(redrive.changes)]
    if redrive.changed_field and redrive.new_value is not None:
        return [Edited(redrive.changed_field, redrive.old_value, redrive.new_value)]
    return []


def _may_add(path: str) -> bool:
    return general(path).removeprefix(_EVENT) in _FIELDS
