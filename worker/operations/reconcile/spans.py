"""What of each topic was read, and what of the input can be judged by it. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from aiokafka import TopicPartition

from db.reconciliation import tables
from db.worker.skips import SkippedSpan, is_recorded
from worker.kafka.consuming.reading import Spans
from worker.kafka.consuming.unreadable import UnreadableSpan
from worker.kafka.offsets import Bounds, milliseconds

# Far more than clocks are apart (`core.clocks`): what is left out here would be taken for missing.
CLOCKS_APART: Final = timedelta(minutes=10)
# Dead letters keep the time of their record, which an upstream service's clock gave it.
_UPSTREAM_CLOCKS_APART: Final = timedelta(days=1)
_FOR_EVER: Final = 2**62


@dataclass(frozen=True, slots=True)
class DeletedSpan:
    """Offsets of the input, `to_offset` not included, that were deleted before they were decided."""

    partition: int
    from_offset: int
    to_offset: int


@dataclass(slots=True)
class InputRead:
    """The input's window, as it was read.

    `undecided` by partition: from the committed offset to the first one there is, where that is later.
    `waiting`: the first offset that is not committed, of those partitions in which something waits.
    `unreadable`: what nobody can unpack of the window.
    """

    spans: Spans
    cut: frozenset[int]  # partitions whose earlier records are deleted and would belong to the window
    oldest_ms: dict[int, int] = field(default_factory=dict)
    undecided: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    waiting: Mapping[TopicPartition, int] = field(default_factory=dict)
    unreadable: list[UnreadableSpan] = field(default_factory=list)

    @property
    def earliest_ms(self) -> int | None:
        """The oldest timestamp of all records; None: there are none, or one has none."""
        oldest = min(self.oldest_ms.values(), default=-1)
        return None if oldest < 0 else oldest

    def skips_in_window(self, skips: Iterable[SkippedSpan]) -> tuple[SkippedSpan, ...]:
        """Those that lie in the window, or before it where its earlier records are deleted."""
        ends = {p.partition: span for p, span in self.spans.items()}
        return tuple(
            skip
            for skip in skips
            if skip.partition in ends
            and skip.from_offset < ends[skip.partition][1]
            and (skip.partition in self.cut or skip.to_offset > ends[skip.partition][0])
        )

    def deleted(self, skips: Sequence[SkippedSpan]) -> tuple[DeletedSpan, ...]:
        """What was deleted before it was decided, and is not among the skips."""
        return tuple(
            DeletedSpan(number, *span)
            for number, span in sorted(self.undecided.items())
            if number in self.cut and not is_recorded(skips, number, *span)
        )


@dataclass(slots=True)
class OutputRead:
    """An output topic as it was read: how far, and what its first records say of those deleted.

    `is_compacted`: any of its records may be gone, by a later one of the same key or one without a value.
    """

    spans: dict[TopicPartition, tuple[int, int]]
    cut: frozenset[TopicPartition]  # deleted records may belong to the window
    first_ms: dict[TopicPartition, int] = field(default_factory=dict)
    unreadable: list[UnreadableSpan] = field(default_factory=list)
    is_compacted: bool = False

    def home_of(self, source: int) -> TopicPartition | None:
        """Where workers write what comes of an input partition."""
        places = sorted(self.spans)
        return places[source % len(places)] if places else None

    def complete_since_ms(self, source: int) -> int:
        """Outcomes decided before, of this input partition, may be deleted. 0: none is.

        Those of a partition of which not all can be unpacked may lie there, whenever they were decided.
        """
        home = self.home_of(source)
        if self._has_gaps(home):
            return _FOR_EVER
        if home is None or home not in self.cut:
            return 0
        first = self.first_ms.get(home)
        return _FOR_EVER if first is None else first + int(CLOCKS_APART.total_seconds() * 1_000)

    def _has_gaps(self, home: TopicPartition | None) -> bool:
        return self.is_compacted or any(span.partition == home for span in self.unreadable)


@dataclass(slots=True)
class LettersRead(OutputRead):
    """The dead letters' topic as it was read."""

    first_source: dict[int, int] = field(default_factory=dict)  # input partition → offset, at home only
    sourceless: int = 0  # dead letters that name no record of the input

    def complete_from(self, source: int) -> int:
        """Dead letters of lower offsets of this input partition may be deleted. 0: none is.

        Those of higher offsets came later: a rewind writes them again in order, too.
        """
        home = self.home_of(source)
        if self._has_gaps(home):
            return _FOR_EVER
        return self.first_source.get(source, _FOR_EVER) if home in self.cut else 0


def outcomes_since(first_decision: datetime | None, start: datetime | None) -> datetime | None:
    """No outcome of the window was published before; None: from the first record on.

    Workers decide a partition in its order, and publish after they have decided, each by its own clock.
    """
    if start is None:
        return None
    return (first_decision or start) - CLOCKS_APART


def letters_since(inputs: InputRead, start: datetime | None, now: datetime) -> datetime | None:
    """No dead letter of the window has an earlier time; None: from the first record on."""
    earliest_ms = inputs.earliest_ms
    # A record may claim a time from the future; its letter has the time at which it failed.
    if start is None or earliest_ms is None or earliest_ms > milliseconds(now):
        return None
    return datetime.fromtimestamp(earliest_ms / 1_000, now.tzinfo) - _UPSTREAM_CLOCKS_APART


def judged_spans(
    inputs: InputRead, confirmed: OutputRead, rejected: OutputRead, letters: LettersRead
) -> list[tables.Span]:
    """What is judged, with what of the other topics may be gone."""
    return [
        tables.Span(
            partition=p.partition,
            start=start,
            end=end,
            is_cut=p.partition in inputs.cut,
            oldest_ms=inputs.oldest_ms.get(p.partition),
            letters_from=letters.complete_from(p.partition),
            confirmed_since_ms=confirmed.complete_since_ms(p.partition),
            rejected_since_ms=rejected.complete_since_ms(p.partition),
        )
        for p, (start, end) in inputs.spans.items()
    ]


def input_read(
    bounds: Mapping[TopicPartition, Bounds],
    window: Spans,
    committed: Mapping[TopicPartition, int | None],
    *,
    from_first: bool,
) -> InputRead:
    """The part of the window that is committed: what is not is still on its way, and nobody's loss."""
    spans = {p: (start, max(start, min(end, committed[p] or 0))) for p, (start, end) in window.items()}
    cut = frozenset(
        p.partition for p, b in bounds.items() if b.first > 0 and (from_first or window[p][0] == b.first)
    )
    undecided = {
        p.partition: (offset, b.first)
        for p, b in bounds.items()
        if (offset := committed[p]) is not None and offset < b.first
    }
    waiting = {p: spans[p][1] for p, (_, end) in window.items() if spans[p][1] < end}
    return InputRead(spans, cut, undecided=undecided, waiting=waiting)
