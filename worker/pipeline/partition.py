"""The state of each assigned partition, and the rules by which it changes.

No method awaits, reads a clock or asks a server, so that the rules can be tested as a table.

    rewound    something failed: read again from an offset, in order
    taken      this worker is the owner: `Ownership` says how far it has come
    decided    in PostgreSQL, and being published
    published  in Kafka, outcomes and offset in one step
"""

from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from aiokafka import ConsumerRecord, TopicPartition

from db.statuses import SilentReplay
from db.worker.positions import PendingBatch, Sentinel
from worker.kafka.producing.lease import Lease


@dataclass(slots=True, eq=False)
class Ownership:
    """How far the owner of a partition is. `lease` lets it publish until another worker takes over.

    Records below `published_to` are decided and published; they are dropped when they are read again. Those
    below `decided_to` are decided, and published or being published. `pending_to` is what `positions` holds.
    """

    lease: Lease
    published_to: int | None  # None: nothing was ever committed, the first record at hand counts
    pending_to: int | None = None
    replays: Sequence[SilentReplay] = ()
    # Order ids whose outcome is not published with its batch, but by `worker.pipeline.withheld`.
    withheld: AbstractSet[str] = frozenset()
    decided_to: int | None = None
    # Where the latest batch ended, if only skipped offsets lie between it and `published_to`.
    skipped_from: int | None = None

    @property
    def is_all_published(self) -> bool:
        """Whether every batch that `positions` has recorded is published."""
        return self.pending_to is None or (self.published_to or 0) >= self.pending_to

    def undecided(self, records: list[ConsumerRecord]) -> list[ConsumerRecord]:
        """The records that are still to be decided. `records` are in order."""
        # What is still being published is decided, too: if that fails, the partition is taken over again.
        start = self.published_to if self.decided_to is None else self.decided_to
        if start is None or records[0].offset >= start:
            return records
        return [record for record in records if record.offset >= start]

    def pending(self, records: Sequence[ConsumerRecord], sentinel: Sentinel | None) -> PendingBatch:
        """The row to record in `positions` before these are published."""
        published_to = records[0].offset if self.published_to is None else self.published_to
        if self.skipped_from is not None:
            published_to = self.skipped_from  # so that `positions` knows which batch this one follows
        return PendingBatch(published_to, records[-1].offset + 1, records[-1].timestamp, sentinel)

    def decided(self, end: int) -> None:
        """Everything below `end` is decided, recorded in `positions`, and being published."""
        self.decided_to = self.pending_to = end
        self.skipped_from = None

    def published(self, end: int) -> None:
        """Everything below `end` is published, and the offset committed."""
        self.published_to = end

    def skipped(self, end: int) -> None:
        """The offset was committed past offsets with nothing to decide."""
        if self.skipped_from is None and self.published_to == self.pending_to:
            self.skipped_from = self.published_to
        self.published_to = end


@dataclass(slots=True)
class Partition:
    """An assigned partition. `failures`: how many it had in a row, without failures of all partitions."""

    ownership: Ownership | None = None
    failures: int = 0
    # Where it was rewound to, until its next records arrive: they may be later ones.
    rewound_to: int | None = None
    # It has to be taken over although no record of it was polled: its records would never arrive.
    lacks_records: bool = False
    # Of each batch that is not published: the offset of its first record, and the time of that in ms.
    _waiting: dict[int, int] = field(default_factory=dict, init=False)

    def in_hand(self, first: ConsumerRecord) -> None:
        """A batch that begins with this record is about to be decided, perhaps not for the first time."""
        self._waiting[first.offset] = first.timestamp

    def published(self, end: int) -> None:
        """Everything below `end` is published, and nothing has failed since."""
        self.failures = 0
        self._waiting = {offset: time for offset, time in self._waiting.items() if offset >= end}

    def oldest_ms(self) -> int | None:
        """When the oldest polled record that is not published was placed; None: not known."""
        published_to = self.ownership.published_to if self.ownership else None
        left = [offset for offset in self._waiting if published_to is None or offset >= published_to]
        time = self._waiting[min(left)] if left else -1
        return None if time < 0 else time

    def skipped(self, end: int) -> None:
        """The offset was committed past offsets with nothing to decide: none before `end` will arrive."""
        if self.ownership:
            self.ownership.skipped(end)
        if self.rewound_to is not None and self.rewound_to < end:
            self.rewound_to = None

    def take(self, ownership: Ownership) -> None:
        self.ownership, self.lacks_records = ownership, False

    def drop(self) -> Ownership | None:
        """Stop owning it; returns what was owned."""
        ownership, self.ownership = self.ownership, None
        return ownership

    def rewind(self, offset: int) -> int:
        """Where to read again after a failure: not past an earlier rewind whose records are yet to come."""
        return offset if self.rewound_to is None else min(offset, self.rewound_to)

    def missing_before(self, first: int) -> int | None:
        """Where to read again, if records from `first` on were read before the partition was rewound.

        A batch may fail while the next records are being fetched. A take-over would ask for the records
        before them, unless neither Kafka nor `positions` has an offset: then the first polled record counts.
        They are asked for once: they may have been deleted meanwhile.
        """
        rewound_to, self.rewound_to = self.rewound_to, None
        return rewound_to if rewound_to is not None and first > rewound_to else None

    def admit(self, records: list[ConsumerRecord], *, is_new: bool) -> list[ConsumerRecord]:
        """Those to decide now. `is_new`: just taken over; then it may have to read from another offset."""
        owned = self.ownership
        if owned is None or (is_new and owned.published_to not in (None, records[0].offset)):
            return []
        return owned.undecided(records)


class Partitions:
    """The partitions of one worker, each created when it is first asked for."""

    def __init__(self) -> None:
        self._all: dict[TopicPartition, Partition] = {}

    def __getitem__(self, partition: TopicPartition) -> Partition:
        return self._all.setdefault(partition, Partition())

    def forget(self, partition: TopicPartition) -> None:
        """It is not assigned to us any more."""
        self._all.pop(partition, None)

    def owned(self) -> dict[TopicPartition, Ownership]:
        return {p: one.ownership for p, one in self._all.items() if one.ownership}

    def lacking_records(self) -> set[TopicPartition]:
        """Those that have to be taken over although no record of them will arrive."""
        return {p for p, one in self._all.items() if one.lacks_records}

    def published_to(self) -> dict[TopicPartition, int]:
        """By owned partition: the offset below which everything is published and committed."""
        return {p: o.published_to for p, o in self.owned().items() if o.published_to is not None}

    def failed(self, partitions: Iterable[TopicPartition]) -> int:
        """Count a failure of each of these; returns the highest number of failures before this one."""
        failed = [self[p] for p in partitions]
        before = max((one.failures for one in failed), default=0)
        for one in failed:
            one.failures = before + 1
        return before
