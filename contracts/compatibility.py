"""Whether a schema may take the place of a released one. Pure.

The modes are those of schema registries. A change is judged by what the other side would see of it:

- BACKWARD: whatever a released schema allows stays allowed. Of orders: no publisher has to change.
- FULL: that, and the other way round: whatever the new schema allows, a reader of a released one takes.
  Of outcomes: no subscriber has to change, whether it reads new events or old ones.

Both are transitive: they hold against every released version, not the last one alone. Two rules are
stricter than in a registry: a field that was released may not go, optional or not, because somebody reads it
or means it; and names that begin with `x_` are the publishers' own, so that no order may ever get such a
field. All other names that a publisher adds are ignored today and may get a meaning.
"""

from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Any, Final, NamedTuple

Schema = Mapping[str, Any]
PUBLISHERS_OWN: Final = "x_"


class Mode(StrEnum):
    """What must hold between a schema and all released ones of its name."""

    BACKWARD_TRANSITIVE = "backward-transitive"
    FULL_TRANSITIVE = "full-transitive"


MODES: Final[Mapping[str, Mode]] = {
    "order-placed": Mode.BACKWARD_TRANSITIVE,
    "order-headers": Mode.BACKWARD_TRANSITIVE,
    "order-confirmed": Mode.FULL_TRANSITIVE,
    "order-rejected": Mode.FULL_TRANSITIVE,
    "outcome-headers": Mode.FULL_TRANSITIVE,
    "dead-letter-headers": Mode.FULL_TRANSITIVE,
}


class Break(NamedTuple):
    """One change that breaks someone. `field`: like items.*.quantity, empty for the whole."""

    field: str
    rule: str
    why: str

    def __str__(self) -> str:
        return f"{self.field or 'the whole'}: {self.rule}: {self.why}"


def breaks(released: Schema, current: Schema, mode: Mode) -> list[Break]:
    """What of `current` breaks the promise that was made with `released`; empty if nothing does."""
    found = [
        *(Break(field, "removed", "it was released") for field in _removed(released, current)),
        *_refusals(_Side(current), _Side(released), "what was allowed is refused now"),
    ]
    if mode is Mode.BACKWARD_TRANSITIVE:
        added = fields(current) - fields(released)
        return found + [
            Break(field, "reserved", f"{PUBLISHERS_OWN}… is the publishers' own")
            for field in sorted(added)
            if field.rpartition(".")[2].startswith(PUBLISHERS_OWN)
        ]
    return found + list(_refusals(_Side(released), _Side(current), "who knows the released one refuses it"))


def fields(schema: Schema) -> set[str]:
    """Every field by its path: items, items.*, items.*.quantity."""
    return set(_fields(_Side(schema), ""))


class _Side(NamedTuple):
    """A schema, or a part of one, and the whole that it refers to."""

    part: Schema
    whole: Schema | None = None

    def at(self, part: Schema) -> "_Side":
        """Another part, with its reference followed."""
        whole = self.part if self.whole is None else self.whole
        while "$ref" in part:
            name = part["$ref"].removeprefix("#/$defs/")
            part = {**whole["$defs"][name], **{k: v for k, v in part.items() if k != "$ref"}}
        return _Side(part, whole)

    def branches(self) -> list["_Side"]:
        """The alternatives, each with what holds for all of them."""
        for keyword in ("anyOf", "oneOf"):
            if keyword in self.part:
                rest = {name: value for name, value in self.part.items() if name != keyword}
                return [self.at({**rest, **self.at(one).part}) for one in self.part[keyword]]
        return [self]

    def property(self, name: str) -> "_Side | None":
        found = self.part.get("properties", {})
        return self.at(found[name]) if name in found else None

    def items(self) -> "_Side":
        return self.at(self.part.get("items") or {})


def _fields(side: _Side, at: str) -> Iterator[str]:
    for branch in side.branches():
        for name in branch.part.get("properties", {}):
            path = _join(at, name)
            yield path
            member = branch.property(name)
            assert member is not None
            yield from _fields(member, path)
        if "items" in branch.part:
            yield from _fields(branch.items(), _join(at, "*"))


def _removed(released: Schema, current: Schema) -> list[str]:
    gone = fields(released) - fields(current)
    # What lies below a field that is gone says nothing new.
    return sorted(field for field in gone if field.rpartition(".")[0] not in gone)


def _join(at: str, name: str) -> str:
    return f"{at}.{name}" if at else name


_ANNOTATIONS: Final = {
    *("$schema", "$id", "$defs", "$comment", "title", "description", "examples", "default", "deprecated"),
    *("readOnly", "writeOnly", "contentMediaType"),
}
_LOWER: Final = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
_UPPER: Final = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")
_STRUCTURE: Final = {
    *("type", "enum", "const", "properties", "required", "items", "additionalProperties"),
    *("anyOf", "oneOf", "allOf", "if", "then", "else"),
}
_NUMBERS: Final = {"int32", "int64", "float", "double"}  # how wide a number is: its bounds say the same


def _refusals(reader: _Side, writer: _Side, why: str, at: str = "") -> Iterator[Break]:
    """What the writer's schema allows and the reader's refuses."""
    ours, theirs = reader.branches(), writer.branches()
    for one in theirs:
        tried = [list(_of_branch(mine, one, why, at)) for mine in ours]
        if all(tried):
            yield from min(tried, key=len)


def _of_branch(reader: _Side, writer: _Side, why: str, at: str) -> Iterator[Break]:
    mine, theirs = reader.part, writer.part
    yield from (Break(at, rule, why) for rule in _narrower(mine, theirs))
    yield from (Break(_join(at, field), "required", why) for field in _newly_required(mine, theirs))
    yield from (Break(_join(at, field), "if/then", why) for field in _new_conditions(mine, theirs))
    for name in theirs.get("properties", {}):
        field, member = reader.property(name), writer.property(name)
        assert member is not None
        if field is not None:
            yield from _refusals(field, member, why, _join(at, name))
        elif mine.get("additionalProperties") is False:
            yield Break(_join(at, name), "additionalProperties", why)
    if "items" in mine and "items" in theirs:
        yield from _refusals(reader.items(), writer.items(), why, _join(at, "*"))


def _narrower(mine: Schema, theirs: Schema) -> Iterator[str]:
    """The keywords by which a value of theirs may be refused."""
    if "type" in mine and not _types(theirs) <= _types(mine):
        yield "type"
    values, their_values = _values(mine), _values(theirs)
    if values is not None and (their_values is None or not set(their_values) <= set(values)):
        yield "enum"
    for keyword in _LOWER:
        if keyword in mine and not mine[keyword] <= theirs.get(keyword, float("-inf")):
            yield keyword
    for keyword in _UPPER:
        if keyword in mine and not mine[keyword] >= theirs.get(keyword, float("inf")):
            yield keyword
    known = _ANNOTATIONS | _STRUCTURE | {*_LOWER, *_UPPER}
    for keyword in sorted(mine.keys() - known):
        # Of two patterns, formats and the like it cannot be said which one allows more.
        is_width = keyword == "format" and mine[keyword] in _NUMBERS
        if not is_width and mine[keyword] != theirs.get(keyword):
            yield keyword


def _types(schema: Schema) -> set[str]:
    given = schema.get("type")
    if given is None and (values := _values(schema)) is not None:
        return {"string"} if all(isinstance(value, str) for value in values) else {"any"}
    types = {given} if isinstance(given, str) else set(given or ("any",))
    return types | ({"integer"} if "number" in types else set())


def _values(schema: Schema) -> list[Any] | None:
    return [schema["const"]] if "const" in schema else schema.get("enum")


def _newly_required(mine: Schema, theirs: Schema) -> list[str]:
    return sorted(set(mine.get("required", ())) - set(theirs.get("required", ())))


def _new_conditions(mine: Schema, theirs: Schema) -> list[str]:
    """The fields that decide conditions of mine which theirs lacks.

    One that is about a value which theirs does not know yet, say about a new code of an open list, counts
    for nothing: nobody has written that value.
    """
    known = _conditions(theirs)
    return [
        field
        for condition in _conditions(mine)
        if condition not in known
        for field in [_decided_by(condition, theirs)]
        if field is not None
    ]


def _conditions(schema: Schema) -> list[Schema]:
    """Everything that holds beside the schema itself, without its texts."""
    alone = {name: schema[name] for name in ("if", "then", "else") if name in schema}
    return [_bare(one) for one in [*schema.get("allOf", ()), *([alone] if alone else ())]]


def _bare(schema: Any) -> Any:
    if isinstance(schema, Mapping):
        return {name: _bare(value) for name, value in schema.items() if name not in _ANNOTATIONS}
    return [_bare(one) for one in schema] if isinstance(schema, list) else schema


def _decided_by(condition: Schema, theirs: Schema) -> str | None:
    """The field whose value decides whether it applies; None where theirs has never had that value."""
    tested = condition.get("if", {}).get("properties", {})
    for name, of_name in tested.items():
        known = theirs.get("properties", {}).get(name, {})
        # An open list names its values as examples.
        written = _values(known) or known.get("examples")
        if written is not None and not set(_values(of_name) or written) & set(written):
            return None
    return ", ".join(tested)
