"""Which place of the input is to be skipped, and what speaks against it. Pure."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from contracts.dead_letters import MAX_OFFSET, MAX_PARTITION
from db.worker.skips import SkippedSpan
from worker.errors import UsageError
from worker.kafka.offsets import Bounds
from worker.operations.skip.sentences import offsets_text, sentence

LONGEST_NAME: Final = 100
LONGEST_NOTE: Final = 1_000
_PLACE: Final = re.compile(r"(?P<topic>[a-zA-Z0-9._-]{1,249}):(?P<partition>\d{1,10}):(?P<offset>\d{1,19})")


@dataclass(frozen=True, slots=True)
class InputPlace:
    """An offset of the input, as it is written on the command line."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}:{self.partition}:{self.offset}"


@dataclass(frozen=True, slots=True)
class SkipRequest:
    """What an operator asks for. `through` is the last offset to skip; None: found out by reading."""

    place: InputPlace
    through: int | None = None
    requested_by: str | None = None
    note: str | None = None


@dataclass(frozen=True, slots=True)
class SkipPlan:
    """The offsets `from_offset` up to, not including, `to_offset`, that would be skipped, and why.

    `committed` is the group's offset, `end` that of the partition: in between is what waits.
    """

    topic: str
    group_id: str
    partition: int
    from_offset: int
    to_offset: int
    why: str
    committed: int | None
    end: int
    requested_by: str | None
    note: str | None
    executed: bool = False


def parse_place(text: str) -> InputPlace:
    """`topic:partition:offset`; UsageError otherwise."""
    found = _PLACE.fullmatch(text) if text.isascii() else None
    if found is None or int(found["partition"]) > MAX_PARTITION or int(found["offset"]) > MAX_OFFSET:
        raise UsageError(f"{text}: write a place of the input as TOPIC:PARTITION:OFFSET, order-placed:3:120")
    return InputPlace(found["topic"], int(found["partition"]), int(found["offset"]))


def require_text(option: str, text: str | None, longest: int) -> str:
    """What goes on record: some printable text; UsageError otherwise."""
    given = (text or "").strip()
    if not given:
        raise UsageError(f"{option} is missing: who asked for this, and why, is recorded")
    if len(given) > longest or not given.isprintable():
        raise UsageError(f"{option}: write at most {longest:,} characters, on one line")
    return given


def refusal(asked: SkipRequest, bounds: Bounds, committed: int | None, skips: Iterable[SkippedSpan]) -> str:
    """Why there is nothing to skip, whatever lies there; empty where it has to be read."""
    place, last = asked.place, asked.place.offset if asked.through is None else asked.through
    if last < place.offset:
        return f"--through {last} lies before {place}"
    if committed is not None and place.offset < committed:
        return f"{place} is behind the workers already: the group has committed {committed:,}"
    if place.offset < bounds.first:
        return f"{place} is deleted: the first offset that is there is {bounds.first:,}"
    if last >= bounds.end:
        return (
            f"offset {last} of {place.topic}-{place.partition} is beyond what can be read: the partition ends"
            f" at {bounds.end:,}, or a transaction that is still open begins there"
        )
    for skip in skips:
        if skip.kind == "skipped" and skip.from_offset <= place.offset and last < skip.to_offset:
            return f"{place} is skipped already: {sentence(skip)}"
    return ""


def report(plan: SkipPlan, again: str) -> list[str]:
    """What a person reads. `again`: the call that does it."""
    name, offsets = f"{plan.topic}-{plan.partition}", offsets_text(plan.from_offset, plan.to_offset)
    count = plan.to_offset - plan.from_offset
    lines = [
        f"{name}: {offsets} cannot be read: {plan.why}.",
        f"Up to {count:,} record{'s' * (count != 1)}; the orders in them are lost to the workers: ask"
        " upstream to send them again.",
        _what_waits(plan),
    ]
    if plan.executed:
        return [
            *lines,
            f"On record: skipped by {plan.requested_by}: {plan.note}. A worker that waits there continues"
            " by itself in a few seconds; `order-worker lag` and `reconcile` name it from now on.",
        ]
    return [*lines, f"Nothing was changed. To skip {'them' if count != 1 else 'it'}: {again}"]


def _what_waits(plan: SkipPlan) -> str:
    before = plan.from_offset - (plan.committed or 0)
    behind = plan.end - plan.to_offset
    if plan.committed is not None and not before:
        return f"The group {plan.group_id} waits before it, with {behind:,} offsets behind it."
    return (
        f"The group {plan.group_id} has {before:,} offsets before it to decide yet, and {behind:,} behind it:"
        " workers skip it when they come to it."
    )
