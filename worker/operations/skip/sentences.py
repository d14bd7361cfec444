"""What is said of spans of the input that no worker decides, wherever they are named. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from db.worker.skips import SkippedSpan
from worker.operations.screen import shown

_MOST_SENTENCES: Final = 3  # of a partition; all of them are in the JSON


@dataclass(frozen=True, slots=True)
class Skips:
    """The spans of a topic. `trouble`: why they are not known; empty where they are."""

    spans: Sequence[SkippedSpan] = field(default=())
    trouble: str = ""

    def of(self, partition: int) -> tuple[SkippedSpan, ...]:
        """Those of one partition, in the order of their offsets."""
        return tuple(span for span in self.spans if span.partition == partition)


def offsets_text(first: int, end: int) -> str:
    """offset 17; offsets 100 to 149. `end` is not included."""
    return f"offset {first:,}" if end == first + 1 else f"offsets {first:,} to {end - 1:,}"


def sentence(span: SkippedSpan) -> str:
    """One clause: which offsets, what became of them, who, when and why."""
    offsets, time = offsets_text(span.from_offset, span.to_offset), shown(span.requested_at)
    many = span.to_offset - span.from_offset > 1
    if span.kind == "skipped":
        were = "were" if many else "was"
        return f"{offsets} {were} skipped by {shown(span.requested_by)} at {time}: {shown(span.note)}"
    return (
        f"{deleted_text(span.from_offset, span.to_offset)} (found {time} by group {shown(span.requested_by)})"
    )


def deleted_text(first: int, end: int) -> str:
    """What lay at deleted offsets nobody knows: records, or only markers of transactions."""
    were = "were" if end > first + 1 else "was"
    return (
        f"{offsets_text(first, end)} {were} deleted before {'they were' if end > first + 1 else 'it was'}"
        f" decided, up to {end - first:,} record{'s' * (end > first + 1)}"
    )


def sentences(spans: Sequence[SkippedSpan]) -> list[str]:
    """The latest ones of a partition, and how many more there are."""
    latest = sorted(spans, key=lambda span: span.requested_at)[-_MOST_SENTENCES:]
    latest_ones = [sentence(span) for span in spans if span in latest]
    left = len(spans) - len(latest_ones)
    return (
        [*latest_ones, f"{left:,} earlier spans were skipped or deleted as well: --json lists them"]
        if left
        else latest_ones
    )
