"""`/outcomes/{order_id}?wait=`: soon after the decision, by one look for all who wait."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from contracts.events import DeadLetterCode
from tests.support.builders import order_value
from tests.support.deadline import eventually
from tests.support.publishing import publish
from tests.support.shop import Shop
from tests.support.topic_names import TopicNames
from worker import app
from worker.app import build
from worker.core.dead_letter import dead_letter_headers
from worker.core.triage import Source
from worker.http import outcomes as limits
from worker.http import queries
from worker.http.queries import NoAnswerError
from worker.lifespan import Worker
from worker.settings import read_settings

NOWHERE = "127.0.0.1:1"


@pytest.fixture(autouse=True)
def patient_with_the_database(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine is no outage."""
    for module in (app, queries):
        monkeypatch.setattr(module, "ANSWER_SECONDS", 30.0)


@asynccontextmanager
async def asked(env: dict[str, str], **changed: str) -> AsyncIterator[tuple[Worker, httpx.AsyncClient]]:
    """A worker that was never started, and who asks it."""
    settings = {name.removeprefix("ORDER_WORKER_").lower(): value for name, value in env.items()}
    worker, application = build(read_settings(**{**settings, **changed}))
    client = httpx.AsyncClient(
        transport=httpx.ASGITransport(application), base_url="http://worker", timeout=30
    )
    try:
        async with client:
            yield worker, client
    finally:
        await worker.outcomes.close()
        await worker.engine.dispose()
        await worker.inquiries.engine.dispose()


def decide(shop: Shop, order_id: UUID) -> str:
    event = json.dumps({"order_id": str(order_id)})
    shop.sql(
        "INSERT INTO order_outcomes VALUES ($1, 'rejected', '', 'order-placed', 0, 3, $2, now())",
        order_id,
        event,
    )
    return event


async def until_waiting(worker: Worker, number: int) -> None:
    waiting = worker.outcomes._waiting
    await asyncio.to_thread(eventually, lambda: sum(map(len, list(waiting.values()))) >= number)


async def test_the_answer_comes_as_soon_as_the_order_is_decided(env: dict[str, str], shop: Shop):
    order_id = uuid4()
    async with asked(env) as (worker, client):
        began = time.monotonic()
        waiting = [asyncio.create_task(client.get(f"/outcomes/{order_id}?wait=PT20S")) for _ in range(3)]
        await until_waiting(worker, 3)
        event = await asyncio.to_thread(decide, shop, order_id)
        answers = await asyncio.gather(*waiting)
        assert time.monotonic() - began < 15
        assert {(answer.status_code, answer.text) for answer in answers} == {(200, event)}
        assert answers[0].headers["ce-dataschema"] == "urn:order-worker:order-rejected:v1"
        # Who comes later waits for nothing.
        assert (await client.get(f"/outcomes/{order_id}?wait=PT20S")).text == event
        assert worker.outcomes._waiting == {}


async def test_one_look_serves_all_who_wait(env: dict[str, str], shop: Shop, monkeypatch: pytest.MonkeyPatch):
    async with asked(env, kafka_bootstrap_servers=NOWHERE) as (worker, client):
        find, looks = worker.outcomes._find, 0

        async def counted(order_ids: Any) -> Any:
            nonlocal looks
            looks += 1
            return await find(order_ids)

        monkeypatch.setattr(worker.outcomes, "_find", counted)
        ids = [uuid4() for _ in range(40)]
        answers = await asyncio.gather(*(client.get(f"/outcomes/{i}?wait=PT1S") for i in ids))
        assert {answer.status_code for answer in answers} == {404}
        assert looks <= len(ids) + 1 / limits.LOOK_SECONDS + 1, "each once at first, then all together"


async def test_more_than_may_wait_are_sent_away_at_once(
    env: dict[str, str], shop: Shop, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(limits, "MAX_WAITING", 2)
    async with asked(env) as (worker, client):
        waiting = [asyncio.create_task(client.get(f"/outcomes/{uuid4()}?wait=PT20S")) for _ in range(2)]
        await until_waiting(worker, 2)
        answer = await client.get(f"/outcomes/{uuid4()}?wait=PT20S")
        assert (answer.status_code, answer.json()["error"]) == (503, "too many are waiting")
        assert answer.headers["retry-after"] == "1"
        worker.health.stopping()
        async with asyncio.timeout(10):
            assert {one.status_code for one in await asyncio.gather(*waiting)} == {404}, "it stops"


async def test_who_waits_hears_that_the_database_went_away(
    env: dict[str, str], shop: Shop, monkeypatch: pytest.MonkeyPatch
):
    async with asked(env) as (worker, client):
        waiting = asyncio.create_task(client.get(f"/outcomes/{uuid4()}?wait=PT1S"))
        await until_waiting(worker, 1)

        async def away(_order_ids: Any) -> Any:
            raise NoAnswerError("the database gives no answer: it is away")

        monkeypatch.setattr(worker.outcomes, "_find", away)
        answer = await waiting
        assert (answer.status_code, answer.json()["error"]) == (
            503,
            "the database gives no answer: it is away",
        )


@pytest.mark.parametrize("wait", ["", "10", "10s", "PT", "PT20.1S", "PT1M", "P1D", "-PT1S", "PT1S&wait=PT1S"])
async def test_a_wait_that_is_none_gets_the_form_of_one(env: dict[str, str], wait: str):
    order_id = uuid4()
    async with asked(env, kafka_bootstrap_servers=NOWHERE, database_url=f"postgresql://x@{NOWHERE}/x") as (
        _,
        client,
    ):
        answer = await client.get(f"/outcomes/{order_id}?wait={wait}")
        assert (answer.status_code, answer.json()) == (
            400,
            {
                "order_id": str(order_id),
                "error": "wait is a duration of at most 20 seconds, given once, like wait=PT10S",
            },
        )


async def test_who_waits_in_vain_hears_of_the_dead_letters_of_the_order(
    env: dict[str, str], topics: TopicNames, shop: Shop
):
    by_key, by_value = uuid4(), uuid4()
    kafka = env["ORDER_WORKER_KAFKA_BOOTSTRAP_SERVERS"]
    failed_at = datetime(2026, 11, 23, 10, tzinfo=UTC)
    for key, value, offset in ((str(by_key).encode(), b"{", 7), (None, order_value(order_id=by_value), 8)):
        source = Source(topics.order_placed, 1, offset)
        headers = dead_letter_headers(DeadLetterCode.INVALID_ORDER, "why", "items", source, 5, failed_at, ())
        publish(kafka, topics.dead_letter, [value], key=key, headers=headers, partition=1)
    letter = {
        "place": "1:0",
        "source": [topics.order_placed, 1, 7],
        "code": "invalid_order",
        "path": "items",
        "message": "why",
        "failed_at": "2026-11-23T10:00:00Z",
    }
    async with asked(env) as (_, client):

        async def ask(order_id: UUID) -> dict[str, Any]:
            async with asyncio.timeout(60):  # a busy Kafka gives no answer in time, now and then
                while True:
                    answer = await client.get(f"/outcomes/{order_id}?wait=PT0S")
                    assert answer.status_code == 404
                    body: dict[str, Any] = answer.json()
                    assert (body.pop("order_id"), body.pop("error")) == (str(order_id), "undecided")
                    if body["dead_letters"] is not None:
                        return body

        assert await ask(by_key) == {"dead_letters": [letter], "older_dead_letters": False}
        body = await ask(by_value)
        assert [one["place"] for one in body["dead_letters"]] == ["1:1"]
        assert await ask(uuid4()) == {"dead_letters": [], "older_dead_letters": False}
        # Without a wait only PostgreSQL is asked.
        assert (await client.get(f"/outcomes/{by_key}")).json() == {
            "order_id": str(by_key),
            "error": "undecided",
        }


async def test_where_kafka_is_away_the_dead_letters_are_not_known(env: dict[str, str], shop: Shop):
    async with asked(env, kafka_bootstrap_servers=NOWHERE) as (_, client):
        answer = await client.get(f"/outcomes/{uuid4()}?wait=PT0S")
        assert answer.status_code == 404
        assert answer.json()["dead_letters"] is None
        assert answer.json()["trouble"].startswith("Kafka: ")
