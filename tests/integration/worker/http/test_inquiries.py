"""What is asked over HTTP: bounded in number and time, read only, and never at the worker's cost."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from worker.app import build
from worker.http import queries as limits
from worker.http.queries import MAX_ASKING, MAX_CONNECTIONS, Inquiries, NoAnswerError
from worker.settings import read_settings


@pytest.fixture
async def inquiries(env: dict[str, str]) -> AsyncIterator[Inquiries]:
    settings = {name.removeprefix("ORDER_WORKER_").lower(): value for name, value in env.items()}
    worker, _ = build(read_settings(**settings))
    yield worker.inquiries
    await worker.inquiries.engine.dispose()


async def test_more_than_may_ask_at_a_time_are_reported_so_at_once(inquiries: Inquiries):
    async with AsyncExitStack() as asking:
        for _ in range(MAX_ASKING):
            await asking.enter_async_context(inquiries.session())
        with pytest.raises(NoAnswerError, match="too many are asking"):
            async with inquiries.session():
                pass
    async with inquiries.session() as session:
        assert (await session.execute(text("SELECT 1"))).scalar_one() == 1


async def test_who_waits_too_long_for_a_connection_or_an_answer_gets_none(
    inquiries: Inquiries, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(limits, "ANSWER_SECONDS", 0.3)

    async def ask() -> str:
        try:
            async with inquiries.session() as session:
                await session.execute(text("SELECT pg_sleep(60)"))
        except NoAnswerError as error:
            return str(error)
        return "answered"

    # All but the first ones never come to a connection.
    said = await asyncio.gather(*(ask() for _ in range(MAX_CONNECTIONS + 3)))
    assert set(said) == {"the database gives no answer: no answer in time"}
    monkeypatch.undo()
    async with inquiries.session() as session:
        assert (await session.execute(text("SELECT 1"))).scalar_one() == 1


async def test_nothing_can_be_written(inquiries: Inquiries):
    with pytest.raises(NoAnswerError, match="read-only transaction") as refused:
        async with inquiries.session() as session:
            await session.execute(text("INSERT INTO categories (name) VALUES ('x')"))
    assert isinstance(refused.value.__cause__, DBAPIError)
