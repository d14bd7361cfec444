"""Which letters a redrive is about: chosen at the click, checked, written down before anything is sent."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple
from uuid import uuid4

from aiokafka import ConsumerRecord, TopicPartition
from sqlalchemy.ext.asyncio import AsyncSession

from db.worker import redrives
from db.worker.redrive_records import Claim, Redrive, Run
from worker.core.dead_letter import own_headers, own_key
from worker.core.decode import Invalid, decode
from worker.errors import CommandError, UsageError
from worker.kafka.consuming.reading import TopicReader, records
from worker.kafka.consuming.unreadable import UnreadableCount, joined
from worker.kafka.offsets import TopicSelection, bounds_of, partitions_of
from worker.operations.dead_letters.letter import Choice, Group, Letter, LetterTally
from worker.operations.dead_letters.read import Found, chosen, letter_spans, sources_of
from worker.operations.redrive.json_edit import Change, ChangeError
from worker.settings import Settings

MAX_SAMPLES: Final = 3  # of the edit
_MAX_OLD_VALUE: Final = 10_000  # characters of what stood there before


class Whole(NamedTuple):
    """What is to be sent of a letter: the record as upstream published it."""

    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]


@dataclass(frozen=True, slots=True)
class Difference:
    """What the edit does to one letter."""

    place: str
    field: str
    old: str | None
    new: str


@dataclass(slots=True)
class Selection:
    """What was chosen, and what of it is left out and why."""

    groups: list[Group] = field(default_factory=list)
    letters: int = 0
    redriven_before: int = 0
    unfinished: int = 0
    """claimed by a run that has not ended, or was interrupted"""
    written_twice: int = 0
    """more letters of a source that is among them already"""
    of_other_topics: int = 0
    gone: int = 0
    """their value was cut, and the whole record is no longer in the input topic"""
    changes: list[Difference] = field(default_factory=list)
    unreadable: list[UnreadableCount] = field(default_factory=list)
    """of what was read for it"""

    @property
    def left_out(self) -> int:
        return self.redriven_before + self.unfinished + self.written_twice + self.of_other_topics + self.gone


class Claimer:
    """Claims the chosen letters in the caller's transaction, which a rehearsal rolls back."""

    def __init__(
        self,
        settings: Settings,
        letters: TopicReader,
        inputs: TopicReader,
        session: AsyncSession,
        run: Run,
        change: Change | None,
    ) -> None:
        self._settings, self._letters, self._inputs = settings, letters, inputs
        self._session, self._run, self._change = session, run, change
        self._selection, self._tally = Selection(), LetterTally()
        self._ends: dict[int, int] = {}

    async def claim(self, choice: Choice, *, quiet: bool) -> Selection:
        """One row a letter; the set is frozen from here on.

        Raises CommandError for a letter that the edit does not make an order; then nothing is to stay.
        """
        partitions = await partitions_of(self._inputs, TopicSelection(self._settings.order_placed_topic))
        # Before the rows are committed, so before anything is sent: it lies behind.
        bounds = await bounds_of(self._inputs, partitions)
        self._ends = {p.partition: b.end for p, b in bounds.items()}
        spans = await letter_spans(self._letters, self._settings, choice)
        async for found in chosen(self._letters, spans, choice, "choosing", quiet=quiet):
            await self._claim_some(found)
        self._selection.groups = self._tally.groups()
        self._selection.unreadable = joined(self._letters.met, self._inputs.met)
        return self._selection

    async def _claim_some(self, found: Sequence[Found]) -> None:
        known = await redrives.find_redrives(self._session, sources_of(found))
        mine: dict[tuple[str, int, int], tuple[Letter, Claim]] = {}
        for letter, record in found:
            if letter.source is None or letter.source.topic != self._settings.order_placed_topic:
                self._selection.of_other_topics += 1
            elif (before := known.get(letter.source)) and before.run_id != self._run.run_id:
                self._count_before(before)
            elif before or letter.source in mine:
                self._selection.written_twice += 1
            elif claim := await self._checked(letter, record):
                mine[letter.source] = letter, claim
        claims = [claim for _, claim in mine.values()]
        added = await redrives.add_redrives(self._session, self._run, claims)
        # Whoever claimed the others meanwhile redrives them.
        self._selection.unfinished += len(claims) - len(added)
        for letter, claim in mine.values():
            if claim.id in added:
                self._count(letter, claim)

    def _count_before(self, before: Redrive) -> None:
        if before.finished_at is None:
            self._selection.unfinished += 1
        else:
            self._selection.redriven_before += 1

    async def _checked(self, letter: Letter, record: ConsumerRecord) -> Claim | None:
        whole = await whole_record(self._inputs, letter, record)
        if whole is None:
            self._selection.gone += 1
            return None
        assert letter.source is not None
        # Where upstream had it, so that it stays with others of its key.
        partition = letter.source.partition % len(self._ends)
        claim = Claim(
            id=uuid4(),
            letter_partition=letter.place.partition,
            letter_offset=letter.place.offset,
            source=letter.source,
            error_code=_storable(letter.code),
            error_path=_storable(letter.path),
            input_partition=partition,
            input_from=self._ends[partition],
        )
        if self._change is None:
            return claim
        old = _old_value(self._change, letter, whole, self._settings.message_max_bytes)
        return claim._replace(
            changed_field=self._change.field, old_value=old, new_value=self._change.new_value
        )

    def _count(self, letter: Letter, claim: Claim) -> None:
        self._selection.letters += 1
        self._tally.add(letter)
        if claim.changed_field and claim.new_value is not None:
            if claim.changed_field == "order_id" and self._selection.letters > 1:
                raise UsageError(
                    "--set order_id: an order id is for one order, and more than one letter is chosen;"
                    " name the place of one"
                )
            if len(self._selection.changes) < MAX_SAMPLES:
                self._selection.changes.append(
                    Difference(str(letter.place), claim.changed_field, claim.old_value, claim.new_value)
                )


async def whole_record(inputs: TopicReader, letter: Letter, record: ConsumerRecord) -> Whole | None:
    """The record before it failed; where its value was cut, from the input topic; None: it is gone there."""
    key = own_key(record.key, record.headers)
    if letter.cut_from_bytes is None or letter.source is None:
        return Whole(key, record.value, own_headers(record.headers))
    partition = TopicPartition(letter.source.topic, letter.source.partition)
    offset = letter.source.offset
    known = await partitions_of(inputs, TopicSelection(letter.source.topic))
    if partition not in known:
        return None
    bounds = (await bounds_of(inputs, [partition]))[partition]
    if not bounds.first <= offset < bounds.end:
        return None
    async for found in records(inputs, {partition: (offset, offset + 1)}):
        # Another one at that offset: the topic is a new one of the same name.
        # The key of the letter may be cut, too.
        same_key = (found.key is None) == (key is None) and (found.key or b"").startswith(key or b"")
        if len(found.value or b"") == letter.cut_from_bytes and same_key:
            return Whole(found.key, found.value, own_headers(found.headers))
    return None


def changed(whole: Whole, change: Change) -> Whole:
    """With the edit, and under the key that the order then has."""
    value, _ = change.apply(whole.value)
    key = new_key(change)
    return whole._replace(value=value, key=whole.key if key is None else key)


def new_key(change: Change) -> bytes | None:
    """Of a new order id, which is the record's key; None: the key stays."""
    return str(json.loads(change.new_value)).encode() if change.field == "order_id" else None


def _old_value(change: Change, letter: Letter, whole: Whole, max_bytes: int) -> str | None:
    """What stood there. Raises CommandError where what comes of the edit is still no order."""
    try:
        value, old = change.apply(whole.value)
    except ChangeError as error:
        raise CommandError(f"{letter.place}: the value {error}; nothing was sent") from None
    decoded = decode(value, max_bytes)
    if isinstance(decoded, Invalid):
        at = f" at {decoded.path}" if decoded.path else ""
        raise CommandError(
            f"{letter.place}: --set {change.field} makes it no order: {decoded.code}{at}:"
            f" {decoded.message}; nothing was sent"
        )
    return old if old is None else old[:_MAX_OLD_VALUE]


def _storable(text: str) -> str:
    return text.replace("\0", "\ufffd")
