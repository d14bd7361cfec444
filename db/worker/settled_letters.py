"""The settled dead letters: who dealt with each, when and why. They are no longer open."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple

from sqlalchemy import BigInteger, Integer, Text, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from db.models import SettledLetter
from db.worker.array_rows import array_rows


class LetterKey(NamedTuple):
    """What identifies a dead letter, wherever it is written again: its source, and that record's time.

    `timestamp_ms` is -1 if the dead letter does not have it.
    """

    topic: str
    partition: int
    offset: int
    timestamp_ms: int


class ToSettle(NamedTuple):
    """A dead letter, and its offset."""

    key: LetterKey
    letter_partition: int
    letter_offset: int


@dataclass(frozen=True, slots=True)
class LetterSettlement:
    """Who has dealt with a letter, when and why."""

    requested_by: str
    requested_at: datetime
    note: str


_keys = array_rows(
    "wanted", {"topic": Text, "partition": Integer, "offset": BigInteger, "timestamp_ms": BigInteger}
)
_FIND: Final = select(
    SettledLetter.source_topic,
    SettledLetter.source_partition,
    SettledLetter.source_offset,
    SettledLetter.source_timestamp_ms,
    SettledLetter.requested_by,
    SettledLetter.requested_at,
    SettledLetter.note,
).join(
    _keys,
    (SettledLetter.source_topic == _keys.c.topic)
    & (SettledLetter.source_partition == _keys.c.partition)
    & (SettledLetter.source_offset == _keys.c.offset)
    & (SettledLetter.source_timestamp_ms == _keys.c.timestamp_ms),
)


async def find_settled(
    session: AsyncSession, keys: Collection[LetterKey]
) -> dict[LetterKey, LetterSettlement]:
    """Those of the dead letters that are settled."""
    if not keys:
        return {}
    columns = zip(LetterKey._fields, zip(*keys, strict=True), strict=True)
    rows = await session.execute(_FIND, {f"each_{name}": list(values) for name, values in columns})
    return {LetterKey(*row[:4]): LetterSettlement(*row[4:]) for row in rows}


async def add_settled(
    session: AsyncSession, letter_topic: str, letters: Sequence[ToSettle], *, requested_by: str, note: str
) -> int:
    """Settle the dead letters; returns how many were not settled before. Settled ones stay as they are."""
    if not letters:
        return 0
    statement = insert(SettledLetter).on_conflict_do_nothing().returning(SettledLetter.id)
    rows = [
        {
            "letter_topic": letter_topic,
            "letter_partition": one.letter_partition,
            "letter_offset": one.letter_offset,
            **{f"source_{name}": value for name, value in one.key._asdict().items()},
            "requested_by": requested_by,
            "note": note,
        }
        for one in letters
    ]
    return len(list((await session.execute(statement, rows)).scalars()))
