"""What is encoded for binary COPY is what PostgreSQL reads."""

import gc
import tracemalloc
from collections.abc import AsyncIterator, Iterable
from datetime import UTC, datetime, timedelta, timezone
from struct import pack

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from db.bulk import copy
from db.bulk.copy import copy_rows
from db.bulk.rows import field, money_field, price_field, time_field
from db.decision import cents_of
from db.engine import create_engine, session_factory

# Around each place where a digit of base 10,000 begins or ends, and at both bounds of the columns.
AMOUNTS = [
    *("0.00", "0.01", "0.10", "0.99", "1.00", "9.90", "99.99", "100.00", "9999.99", "10000.00", "10000.01"),
    *("12345678.90", "99999999.99", "100000000.00", "100000000.01", "999999999999.99"),
]
TIMES = [
    datetime(1970, 1, 1, tzinfo=UTC),
    datetime(1999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
    datetime(2026, 11, 24, 1, 2, 3, 4, tzinfo=timezone(timedelta(hours=-5, minutes=-30))),
    datetime(9998, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
]


@pytest.fixture
async def session(database_url: str) -> AsyncIterator[AsyncSession]:
    engine = create_engine(database_url)
    async with session_factory(engine)() as session:
        yield session
    await engine.dispose()


async def written(session: AsyncSession, kind: str, fields: list[bytes]) -> list[object]:
    """What is in a table of one such column after the fields were copied into it, in their order."""
    await session.execute(text(f"CREATE TEMPORARY TABLE copied (id serial, what {kind}) ON COMMIT DROP"))
    await copy_rows(session, "copied", ["what"], (pack(">h", 1) + one for one in fields))
    return list((await session.scalars(text("SELECT what FROM copied ORDER BY id"))).all())


@pytest.mark.parametrize("encode", [lambda price: money_field(cents_of(price)), price_field])
async def test_an_amount_is_read_to_the_cent_and_has_two_decimals(session: AsyncSession, encode):
    read = await written(session, "numeric", [encode(amount) for amount in AMOUNTS])
    assert [str(amount) for amount in read] == AMOUNTS


async def test_an_amount_too_large_for_its_column_is_refused_and_not_cut(session: AsyncSession):
    with pytest.raises(asyncpg.NumericValueOutOfRangeError):
        await written(session, "numeric(14, 2)", [money_field(10**14)])


async def test_a_time_is_read_to_the_microsecond_whatever_its_zone(session: AsyncSession):
    assert await written(session, "timestamptz", [time_field(time) for time in TIMES]) == TIMES


async def test_text_and_bytes_are_read_as_they_are(session: AsyncSession):
    texts = ["", "für", "tab\tand\nline", "\\N", "€" * 5_000]
    assert await written(session, "text", [field(one.encode()) for one in texts]) == texts


async def test_the_rows_of_a_copy_are_given_up_without_the_collector(session: AsyncSession):
    """They were not: asyncpg makes a cycle of what reads a file."""
    await session.execute(text("CREATE TEMPORARY TABLE copied (what bytea)"))
    rows = [pack(">h", 1) + field(b"x" * 1_000)] * 2_000
    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        await copy_rows(session, "copied", ["what"], rows)
        kept_bytes, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        gc.enable()
    assert 500_000 < peak_bytes < 1_900_000, "in pieces, and not all of it at once"
    assert kept_bytes < 200_000


async def test_few_rows_are_sent_as_one_piece(session: AsyncSession, monkeypatch: pytest.MonkeyPatch):
    sent: list[int] = []
    pieces = copy._chunks

    async def counted(rows: Iterable[bytes]) -> AsyncIterator[bytes]:
        async for piece in pieces(rows):
            sent.append(len(piece))
            yield piece

    monkeypatch.setattr(copy, "_chunks", counted)
    assert await written(session, "bytea", [field(b"x")] * 400) == [b"x"] * 400
    assert len(sent) == 1
    sent.clear()
    await copy_rows(session, "copied", ["what"], [])
    assert len(sent) == 1
