"""Claims the dead letters of a redrive: chosen at the start, checked, stored before anything is sent."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple
from uuid import uuid4

from aiokafka import ConsumerRecord, TopicPartition
from sqlalchemy.ext.asyncio import AsyncSession

from contracts.events import DeadLetterCode
from db.worker import redrives
from db.worker.redrive_records import Claim, Redrive, Run
from worker.core.dead_letter import own_headers, own_key
from worker.core.decode import Invalid, decode
from worker.errors import CommandError, UsageError
from worker.kafka.consuming.reading import TopicReader, records
from worker.kafka.consuming.unreadable import UnreadableCount, joined
from worker.kafka.offsets import TopicSelection, bounds_of, partitions_of
from worker.operations.dead_letters.known import Found, KnownOfLetters, look_up
from worker.operations.dead_letters.letter import Choice, Group, Letter, LetterTally
from worker.operations.dead_letters.read import add_known, chosen, letter_spans
from worker.operations.redrive.edit_file import named
from worker.operations.redrive.edits import (
    Edited,
    Edits,
    apply,
    changes_order_id,
    new_key,
    with_edits,
)
from worker.operations.redrive.json_edit import Change, ChangeError
from worker.settings import Settings

MAX_SAMPLES: Final = 3  # letters, of whose edits some are shown
_MAX_FIELDS: Final = 10  # of these edits


class Original(NamedTuple):
    """What is to be sent of a letter: the record as upstream published it."""

    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]


@dataclass(frozen=True, slots=True)
class Difference:
    """What an edit does to one letter; an empty `field` is the whole value."""

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
    settled: int = 0
    """somebody has dealt with them, and nobody has asked for them here"""
    conflicts: int = 0
    """their id was decided for another order, so that they fail again; nobody has asked for them here"""
    changes: list[Difference] = field(default_factory=list)
    unreadable: list[UnreadableCount] = field(default_factory=list)
    """of what was read for it"""

    @property
    def left_out(self) -> int:
        counts = (self.redriven_before, self.unfinished, self.written_twice, self.of_other_topics, self.gone)
        return sum(counts) + self.settled + self.conflicts


def left_out_text(selection: Selection) -> str:
    """What is left out, in words."""
    counts = {
        "redriven before": selection.redriven_before,
        "claimed by a redrive that has not ended": selection.unfinished,
        "more letters of the same source": selection.written_twice,
        "from another topic": selection.of_other_topics,
        "cut, and no longer whole in the input topic": selection.gone,
        "settled (with --settled, or by place, they are sent too)": selection.settled,
        "of order_id_conflict, which fail again (with that --code, or by place)": selection.conflicts,
    }
    return ", ".join(f"{count:,} {why}" for why, count in counts.items() if count)


class Prepared(NamedTuple):
    """A letter that is to be claimed, as it will be sent, and what was changed of it."""

    claim: Claim
    original: Original
    edited: Sequence[Edited]


OnClaimed = Callable[[Sequence[tuple[Letter, Original]]], Awaitable[None]]


async def _ignore(_: Sequence[tuple[Letter, Original]]) -> None:
    pass


class Claimer:
    """Claims the chosen letters in the caller's transaction, which a rehearsal rolls back."""

    def __init__(
        self,
        settings: Settings,
        letters: TopicReader,
        inputs: TopicReader,
        session: AsyncSession,
        run: Run,
        edits: Edits,
        on_claimed: OnClaimed = _ignore,
    ) -> None:
        self._settings, self._letters, self._inputs = settings, letters, inputs
        self._session, self._run, self._edits, self._on_claimed = session, run, edits, on_claimed
        self._selection, self._tally = Selection(), LetterTally()
        self._ends: dict[int, int] = {}
        self._bad: list[str] = []

    async def claim(self, choice: Choice, *, quiet: bool) -> Selection:
        """One row a letter; the set is frozen from here on.

        Raises CommandError that names the letters which the edits do not make an order; then nothing is to
        stay. `on_claimed` gets some letters at a time, as they will be sent.
        """
        partitions = await partitions_of(self._inputs, TopicSelection(self._settings.order_placed_topic))
        # Before the rows are committed, so before anything is sent: it lies after.
        bounds = await bounds_of(self._inputs, partitions)
        self._ends = {p.partition: b.end for p, b in bounds.items()}
        try:
            spans = await letter_spans(self._letters, self._settings, choice)
            async for found in chosen(self._letters, spans, choice, "choosing", quiet=quiet):
                await self._claim_some(found, choice)
        except CommandError as error:
            raise type(error)(self._edits.located(str(error))) from None
        if self._bad:
            raise CommandError(named(self._bad))
        self._selection.groups = self._tally.groups()
        self._selection.unreadable = joined(self._letters.met, self._inputs.met)
        return self._selection

    async def _claim_some(self, found: Sequence[Found], choice: Choice) -> None:
        known = await look_up(self._session, self._settings.dead_letter_topic, found)
        mine: dict[tuple[str, int, int], tuple[Letter, Prepared]] = {}
        for letter, record in found:
            if letter.source is None or letter.source.topic != self._settings.order_placed_topic:
                self._selection.of_other_topics += 1
            elif (before := known.redrive(letter)) and before.run_id != self._run.run_id:
                self._count_before(before)
            elif before or letter.source in mine:
                self._selection.written_twice += 1
            elif known.settled(letter) and not choice.asks_for_settled(letter):
                self._selection.settled += 1
            elif letter.code == DeadLetterCode.ORDER_ID_CONFLICT and not choice.asks_for_conflict(letter):
                self._selection.conflicts += 1
            elif prepared := await self._prepared(letter, record):
                mine[letter.source] = letter, prepared
        claims = [prepared.claim for _, prepared in mine.values()]
        added = await redrives.add_redrives(self._session, self._run, claims)
        # Another run has claimed the others meanwhile, and redrives them.
        self._selection.unfinished += len(claims) - len(added)
        claimed = [(letter, prepared) for letter, prepared in mine.values() if prepared.claim.id in added]
        for letter, prepared in claimed:
            self._count(letter, prepared, known)
        await self._on_claimed([(letter, prepared.original) for letter, prepared in claimed])

    def _count_before(self, before: Redrive) -> None:
        if before.finished_at is None:
            self._selection.unfinished += 1
        else:
            self._selection.redriven_before += 1

    async def _prepared(self, letter: Letter, record: ConsumerRecord) -> Prepared | None:
        """As it is to be sent; None where it cannot be."""
        original = await original_record(self._inputs, letter, record)
        if original is None:
            self._selection.gone += 1
            return None
        try:
            original, edited = changed(original, self._edits.of(letter.place))
        except ChangeError as error:
            self._bad.append(f"{self._edits.named(letter.place)}: the value {error}")
            return None
        if edited and (why := self._refusal(original, edited)):
            self._bad.append(f"{self._edits.named(letter.place)}: {why}")
            return None
        return Prepared(with_edits(self._claim(letter), edited), original, edited)

    def _refusal(self, original: Original, edited: Sequence[Edited]) -> str:
        """Why an edited letter is no order; empty where it is one."""
        decoded = decode(original.value, self._settings.message_max_bytes, original.headers)
        if not isinstance(decoded, Invalid):
            return ""
        at = f" at {decoded.path}" if decoded.path else ""
        fields = ", ".join(one.field or "its new value" for one in edited)
        option = "" if self._edits.file else "--set "
        return f"{option}{fields} makes it no order: {decoded.code}{at}: {decoded.message}"

    def _claim(self, letter: Letter) -> Claim:
        assert letter.source is not None
        # Where upstream had it, so that it stays with others of its key.
        partition = letter.source.partition % len(self._ends)
        return Claim(
            id=uuid4(),
            letter_partition=letter.place.partition,
            letter_offset=letter.place.offset,
            source=letter.source,
            error_code=_storable(letter.code),
            error_path=_storable(letter.path),
            input_partition=partition,
            input_from=self._ends[partition],
        )

    def _count(self, letter: Letter, prepared: Prepared, known: KnownOfLetters) -> None:
        selection = self._selection
        selection.letters += 1
        add_known(self._tally, letter, known)
        if selection.letters > 1 and changes_order_id(self._edits.of_all):
            raise UsageError(
                "--set order_id: an order id is for one order, and more than one letter is chosen;"
                " name the place of one"
            )
        if selection.letters <= MAX_SAMPLES:
            place = str(letter.place)
            differences = [Difference(place, one.field, one.old, one.new) for one in prepared.edited]
            selection.changes += differences[: _MAX_FIELDS - len(selection.changes)]


async def original_record(inputs: TopicReader, letter: Letter, record: ConsumerRecord) -> Original | None:
    """The record before it failed; where its value was cut, from the input topic; None: it is gone there."""
    key = own_key(record.key, record.headers)
    if letter.cut_from_bytes is None or letter.source is None:
        return Original(key, record.value, own_headers(record.headers))
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
            return Original(found.key, found.value, own_headers(found.headers))
    return None


def changed(original: Original, changes: Sequence[Change]) -> tuple[Original, list[Edited]]:
    """With the edits, and under the key that the order then has; and what they did."""
    value, edited = apply(changes, original.value)
    key = new_key(changes)
    return original._replace(value=value, key=original.key if key is None else key), edited


def _storable(text: str) -> str:
    return text.replace("\0", "\ufffd")
