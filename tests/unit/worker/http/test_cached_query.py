"""A query of the page: answered in time or not at all, asked once however many want to know."""

import asyncio
import time

import pytest

from worker.http.page import cached_query as limits
from worker.http.page.cached_query import CachedQuery, Panel
from worker.http.queries import NoAnswerError


class Server:
    """Counts who asks; answers once it may."""

    def __init__(self) -> None:
        self.asked = 0
        self.asking = 0
        self.may_answer = asyncio.Event()

    async def ask(self) -> int:
        self.asked += 1
        self.asking += 1
        try:
            await self.may_answer.wait()
            return self.asked
        finally:
            self.asking -= 1


async def test_many_viewers_are_one_question_and_its_answer_is_kept_for_a_moment(
    monkeypatch: pytest.MonkeyPatch,
):
    server = Server()
    query = CachedQuery("Kafka", server.ask)
    viewers = [asyncio.create_task(query.answer()) for _ in range(50)]
    await asyncio.sleep(0)
    server.may_answer.set()
    assert await asyncio.gather(*viewers) == [Panel(1)] * 50
    assert await query.answer() == Panel(1)
    monkeypatch.setattr(limits, "KEPT_SECONDS", 0.0)
    assert await query.answer() == Panel(2)


async def test_a_slow_server_is_said_to_be_slow_and_is_given_up():
    server = Server()
    began = time.monotonic()
    assert await CachedQuery("Kafka", server.ask, 0.1).answer() == Panel(None, "Kafka: no answer within 0 s")
    assert time.monotonic() - began < 1
    await asyncio.sleep(0)
    assert server.asking == 0


async def test_as_long_as_a_question_does_not_end_nothing_new_is_asked(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(limits, "KEPT_SECONDS", 0.0)
    closing = asyncio.Event()
    asked = 0

    async def ask() -> int:
        nonlocal asked
        asked += 1
        try:
            await asyncio.Event().wait()
        finally:
            await closing.wait()  # as a client that closes its connections
        return 1

    query = CachedQuery("Kafka", ask, 0.05)
    for _ in range(3):
        assert (await query.answer()).trouble
    assert (asked, query.is_open) == (1, True)
    closing.set()
    await query.close()
    assert not query.is_open
    await query.answer()
    assert asked == 2
    await query.close()


@pytest.mark.parametrize(
    ("error", "trouble"),
    [
        (ConnectionRefusedError(111, "x"), "Kafka: connection refused"),
        (TimeoutError(), "Kafka: no answer in time"),
        (NoAnswerError("too many are asking"), "too many are asking"),
        (KeyError("secret"), "failed with KeyError; the log of this worker says more"),
    ],
)
async def test_an_error_becomes_words_and_hides_no_other_part(error: Exception, trouble: str):
    async def ask() -> int:
        raise error

    assert await CachedQuery("Kafka", ask).answer() == Panel(None, trouble)
