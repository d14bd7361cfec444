"""A consumer that keeps every unpacked record when aiokafka meets one that it cannot unpack.

aiokafka moves the position of each partition that a poll drains, and raises at the first record or batch that
it cannot unpack. The records that it drained before are lost, of all partitions, because their positions are
not moved back. And every later poll raises at the same record again.

    getmany
     ├ hand over    read again what the caller did not accept of the previous poll
     ├ drain        each partition by itself: return what was unpacked, and move the position past it
     ├ read raw     what could not be unpacked, concurrently, with requests for that partition only
     └ wait         for records, or for a raw read
"""

import asyncio
import logging
import math
import sys
import time
from typing import Any

from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.consumer.fetcher import FetchResult, OffsetResetStrategy
from aiokafka.errors import ConsumerStoppedError, KafkaError, NoOffsetForPartitionError, OffsetOutOfRangeError

from worker.kafka.consuming.holds import Hold, Pause, Reread
from worker.kafka.consuming.led_consumer import LedConsumer
from worker.kafka.consuming.membership import FetchStoppedError, check_group, has_stopped, leave_while_joining
from worker.kafka.consuming.places import Places
from worker.kafka.consuming.raw_batch import RawBatch
from worker.kafka.consuming.raw_reader import RawReader
from worker.kafka.consuming.unpacking import MAX_POLL_BYTES, Room, unpack
from worker.kafka.consuming.unreadable import UnreadableSpan
from worker.kafka.internals import adopt, free, polling, wait_for_records
from worker.kafka.records import Records
from worker.observability.events import Event, about

log = logging.getLogger(__name__)


class RecordConsumer(LedConsumer):
    """An AIOKafkaConsumer whose position in each partition is exactly after the records that it handed over.

    A broken record or batch affects its own partition only. A record that can be read raw is returned as
    `UnreadableRecord`. If nothing can be read, the partition waits, is listed in `unreadable`, and is read
    again now and then.

    accepting: the records of a poll count as handed over when `accept()` is called; until then, polls return
    them again. report_out_of_range: a position outside of the log is listed in `out_of_range` instead of
    being raised, and is not reset. A partition without a committed offset starts at its first record.
    max_poll_bytes: of a poll's values and headers, unpacked; 16 records more at most.
    """

    unreadable: dict[TopicPartition, UnreadableSpan]
    """the unreadable span at which a partition waits; `skip_span` continues after it"""
    out_of_range: dict[TopicPartition, int]
    """positions outside of the log; `seek` removes them"""
    refused: dict[TopicPartition, str]
    """the error that a broker last answered instead of records, until it answers records again"""

    def __init__(
        self,
        *topics: str,
        accepting: bool = False,
        report_out_of_range: bool = False,
        max_poll_bytes: int = MAX_POLL_BYTES,
        **options: Any,
    ) -> None:
        if options.get("key_deserializer") or options.get("value_deserializer"):
            raise ValueError("what is read raw passes no deserializer: take keys and values as bytes")
        if report_out_of_range:
            options["auto_offset_reset"] = "none"
        self._places = known = Places(accepting)
        self.unreadable, self.out_of_range, self.refused = known.unreadable, known.out_of_range, known.refused
        self._report_out_of_range = report_out_of_range
        self._is_never_reset = options.get("auto_offset_reset") == "none"
        self._max_poll_bytes = max_poll_bytes
        self._assignment_seen: Any = None
        self._hands_over = True
        self._owed: KafkaError | None = None  # raised by the next poll
        self._raw = RawReader(self)
        self._adopted: Any = None
        super().__init__(*topics, **options)

    # aiokafka makes its fetcher in `start()` and waits for the group after that: what is fetched meanwhile
    # has to be contained as well.
    @property
    def _fetcher(self) -> Any:
        return self._adopted

    @_fetcher.setter
    def _fetcher(self, fetcher: Any) -> None:
        if fetcher is not None:
            adopt(fetcher, note=self._note_answer, on_seek=self._places.sought)
        self._adopted = fetcher

    async def getmany(
        self, *partitions: TopicPartition, timeout_ms: float = 0, max_records: int | None = None
    ) -> Records:
        """Each partition's records in order, up to the first that cannot be read; no record is lost.

        Waits like aiokafka's `getmany`. The errors that it found are raised by a poll of their own, after the
        drained records were returned. Raises FetchStoppedError if no records can arrive any more.
        """
        if self._closed:
            raise ConsumerStoppedError()
        if max_records is not None and max_records < 1:
            raise ValueError("max_records must be at least 1")
        check_group(self._coordinator)
        with polling(self._subscription):
            until = time.monotonic() + timeout_ms / 1_000
            return await self._poll(partitions, until, max_records or self._max_poll_records or sys.maxsize)

    async def getone(self, *partitions: TopicPartition) -> ConsumerRecord:
        """The next record; waits for it without a limit."""
        while not (found := await self.getmany(*partitions, timeout_ms=1_000, max_records=1)):
            pass
        return next(iter(found.values()))[0]

    def accept(self) -> set[TopicPartition]:
        """Accept the records of the last poll: they are not read again. Returns their partitions."""
        return self._places.accept()

    def hand_over_no_more(self) -> None:
        """Return no further records; positions move only past trailing transaction markers."""
        self._hands_over = False

    def accepted_position(self, partition: TopicPartition) -> int | None:
        """The offset below which every record has been accepted, transaction markers included.

        None if the caller has not accepted all records yet, or the position is not known yet.
        """
        state = self._state_of(partition)
        if state is None or partition in self._places.offered or not state.has_valid_position:
            return None
        return int(state.position)

    def skip_span(self, span: UnreadableSpan) -> None:
        """Continue after the unreadable span."""
        self.seek(span.partition, span.end)

    def require_fetching(self) -> None:
        """Raise FetchStoppedError if no records can arrive any more."""
        if not self._closed and has_stopped(self._coordinator, self._fetcher):
            raise FetchStoppedError("a task of aiokafka's has ended: a new consumer is needed")

    async def stop(self) -> None:
        """As aiokafka's."""
        await self._raw.stop()
        await leave_while_joining(self._client, self._coordinator)
        # A task of aiokafka's that is cancelled before it ran at all ends its stop with a CancelledError.
        await asyncio.sleep(0)
        await super().stop()

    async def _poll(self, partitions: tuple[TopicPartition, ...], until: float, max_records: int) -> Records:
        while True:
            if self._subscription.reassignment_in_progress:
                await self._subscription.wait_for_assignment()
            self._look_at_assignment()
            self._read_again_what_was_not_accepted()
            if self._owed is not None:
                owed, self._owed = self._owed, None
                raise owed
            drained = self._drain(partitions, Room(max_records, self._max_poll_bytes))
            left = until - time.monotonic()
            if drained or self._closed or left <= 0:
                return drained
            if self._owed is None:
                await wait_for_records(self._fetcher, left)

    def _look_at_assignment(self) -> None:
        self.require_fetching()
        subscription = self._subscription.subscription
        assignment = subscription and subscription.assignment
        if assignment is not self._assignment_seen:
            self._assignment_seen = assignment
            self._owed = None
            self._places.clear()

    def _read_again_what_was_not_accepted(self) -> None:
        for partition, offset in self._places.not_accepted().items():
            self.seek(partition, offset)

    def _drain(self, partitions: tuple[TopicPartition, ...], room: Room) -> Records:
        drained: Records = {}
        for partition in list(self._fetcher._records):
            state = self._state_of(partition)
            if partitions and partition not in partitions and state is not None:
                continue
            if state is None:
                del self._fetcher._records[partition]
                continue
            if records := self._take(partition, state, room):
                drained[partition] = records
            if room.is_used_up:
                if partition in self._fetcher._records:  # what is left of it comes after the others
                    self._fetcher._records.move_to_end(partition)
                break
        return drained

    def _state_of(self, partition: TopicPartition) -> Any:
        """aiokafka's state of the partition; None if it is not assigned."""
        return self._assignment_seen and self._assignment_seen.state_value(partition)

    def _take(self, partition: TopicPartition, state: Any, room: Room) -> list[ConsumerRecord]:
        began = state.position if state.has_valid_position else None
        entry = self._fetcher._records[partition]
        if type(entry) is Reread:
            records = self._take_raw(partition, state, entry, room)
        elif self._is_never_reset and (left_at := self._places.moved_from(partition, began)) is not None:
            self.seek(partition, left_at)
            return []
        elif type(entry) is FetchResult:
            records = self._unpack(partition, state, entry, room)
        else:
            records = []
            self._look_at_hold_or_error(partition, entry)
        if began is not None and state.has_valid_position:
            self._places.left(partition, began, state.position, has_records=bool(records))
        return records

    def _unpack(
        self, partition: TopicPartition, state: Any, result: FetchResult, room: Room
    ) -> list[ConsumerRecord]:
        if not result.check_assignment(partition):
            free(self._fetcher, partition)
            return []
        if not self._hands_over:
            room = Room(1, 1)
        records, position, is_whole = unpack(partition, result, room, state.highwater)
        if records and not self._hands_over:
            self._hold(partition, Pause(math.inf))
            return []
        state.consumed_to(position)
        if not is_whole:
            self._hold(partition, Reread(position, tries=int(partition in self.unreadable)))
        elif not room.is_used_up:
            free(self._fetcher, partition)
        return records

    def _hold(self, partition: TopicPartition, hold: Hold) -> None:
        self._fetcher._records[partition] = hold
        if isinstance(hold, Reread):
            self._raw.read(partition, hold)

    def _take_raw(
        self, partition: TopicPartition, state: Any, hold: Reread, room: Room
    ) -> list[ConsumerRecord]:
        """What was read raw, in order; after it the partition continues, or waits at the unreadable span."""
        if not state.has_valid_position or state.position != hold.offset:
            free(self._fetcher, partition)
            return []
        if state.paused or not self._hands_over:
            return []
        if hold.found is None:
            self._raw.read(partition, hold)
            return []
        began, found = hold.offset, hold.found
        records = hold.take(found, room.records)
        room.take(records)
        state.consumed_to(hold.offset)
        if hold.is_taken(found):
            self._continue_after(partition, hold, found, began)
        return records

    def _continue_after(self, partition: TopicPartition, hold: Reread, found: RawBatch, began: int) -> None:
        hold.found, hold.taken = None, 0
        if found.span is None:
            self.unreadable.pop(partition, None)
            if hold.offset > began:
                free(self._fetcher, partition)
            else:  # nothing was found: the next fetch need not bring more
                self._hold(partition, Pause(hold.due))
            return
        if self.unreadable.get(partition) != found.span:
            extra = about(Event.RECORDS_UNREADABLE, partition, offset=found.span.first, end=found.span.end)
            log.info("%s: this partition waits there, and is read again at times", found.span, extra=extra)
        self.unreadable[partition] = found.span

    def _look_at_hold_or_error(self, partition: TopicPartition, entry: Any) -> None:
        if isinstance(entry, Pause):
            if time.monotonic() >= entry.until:
                free(self._fetcher, partition)
            return
        free(self._fetcher, partition)
        is_lost = isinstance(entry._error, OffsetOutOfRangeError | NoOffsetForPartitionError)
        if not (is_lost and self._report_out_of_range):
            self._owed = self._owed or entry._error
            return
        state = self._state_of(partition)
        if isinstance(entry._error, NoOffsetForPartitionError):
            # Nothing was ever committed, so nothing can be skipped.
            state.await_reset(OffsetResetStrategy.EARLIEST)
        elif state.has_valid_position:  # else it is said of a position that another owner had
            self.out_of_range[partition] = state.position
            # Until it is sought: a log that was cut may grow past this place, with other records.
            self._hold(partition, Pause(math.inf))

    def _note_answer(self, partition: TopicPartition, error: str) -> None:
        if self._subscription.is_assigned(partition):
            self._places.answered(partition, error)
