"""What a reconciliation copies of each record into `db.reconciliation.tables`, in COPY's binary form."""

from collections.abc import Iterable, Iterator, Sequence
from struct import Struct
from typing import Final, NamedTuple
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from db.bulk.copy import copy_rows
from db.bulk.rows import NULL, field


class RecordRow(NamedTuple):
    """One input record: its order, or the code of what is wrong with it. `passed_on`: headers, opaque."""

    partition: int
    offset: int
    timestamp_ms: int
    order_id: UUID | None
    fingerprint: bytes | None
    code: str | None
    passed_on: bytes | None


class OutcomeRow(NamedTuple):
    """One record of an outcome topic. `digest`: the first 16 bytes of the SHA-256 of its value."""

    is_confirmation: bool
    partition: int
    offset: int
    order_id: UUID | None
    digest: bytes
    republished: bool


class LetterRow(NamedTuple):
    """One dead letter: the source that it names, and its own offset."""

    partition: int
    offset: int
    timestamp_ms: int | None
    letter_partition: int
    letter_offset: int


_RECORD: Final = (
    "partition",
    "record_offset",
    "timestamp_ms",
    "order_id",
    "fingerprint",
    "code",
    "passed_on",
)
_OUTCOME: Final = ("is_confirmation", "partition", "record_offset", "order_id", "digest", "republished")
_LETTER: Final = ("partition", "record_offset", "timestamp_ms", "letter_partition", "letter_offset")
_RECORD_START: Final = Struct(">hiiiqiq").pack
_OUTCOME_START: Final = Struct(">hi?iiiq").pack
_LETTER_START: Final = Struct(">hiiiq").pack
_LETTER_PLACE: Final = Struct(">iiiq").pack
_BIGINT: Final = Struct(">iq").pack
_BOOLEAN: Final = Struct(">i?").pack


async def add_records(session: AsyncSession, rows: Iterable[RecordRow]) -> None:
    await _copy(session, "reconciled_records", _RECORD, _record_pieces(rows))


async def add_outcome_records(session: AsyncSession, rows: Iterable[OutcomeRow]) -> None:
    await _copy(session, "reconciled_outcomes", _OUTCOME, _outcome_pieces(rows))


async def add_letters(session: AsyncSession, rows: Iterable[LetterRow]) -> None:
    await _copy(session, "reconciled_letters", _LETTER, _letter_pieces(rows))


async def _copy(session: AsyncSession, table: str, columns: Sequence[str], pieces: Iterable[bytes]) -> None:
    # The first statement sends BEGIN, without which the COPY would commit by itself.
    await session.execute(text("SELECT 1"))
    await copy_rows(session, table, columns, pieces)


def _record_pieces(rows: Iterable[RecordRow]) -> Iterator[bytes]:
    for row in rows:
        yield _RECORD_START(len(row), 4, row.partition, 8, row.offset, 8, row.timestamp_ms)
        yield NULL if row.order_id is None else field(row.order_id.bytes)
        yield NULL if row.fingerprint is None else field(row.fingerprint)
        yield NULL if row.code is None else field(row.code.encode())
        yield NULL if row.passed_on is None else field(row.passed_on)


def _outcome_pieces(rows: Iterable[OutcomeRow]) -> Iterator[bytes]:
    for row in rows:
        yield _OUTCOME_START(len(row), 1, row.is_confirmation, 4, row.partition, 8, row.offset)
        yield NULL if row.order_id is None else field(row.order_id.bytes)
        yield field(row.digest)
        yield _BOOLEAN(1, row.republished)


def _letter_pieces(rows: Iterable[LetterRow]) -> Iterator[bytes]:
    for row in rows:
        yield _LETTER_START(len(row), 4, row.partition, 8, row.offset)
        yield NULL if row.timestamp_ms is None else _BIGINT(8, row.timestamp_ms)
        yield _LETTER_PLACE(4, row.letter_partition, 8, row.letter_offset)
