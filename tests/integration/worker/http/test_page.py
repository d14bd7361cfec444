"""The page beside servers that are away, slow or full: it is there, says so, and costs little."""

import asyncio
import html as entities
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import httpx
import pytest
from aiokafka import TopicPartition
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.types import ASGIApp

from contracts.events import OrderRejected, Reason, ReasonCode
from db.worker import sales
from tests.support.publishing import publish
from tests.support.shop import Shop
from tests.support.topic_names import TopicNames
from worker.app import build
from worker.http.page import site, tail
from worker.http.page.tail import read_page, read_tail, size_of
from worker.kafka.consuming.reading import reader
from worker.observability import history
from worker.sandbox.servers.services import Services
from worker.settings import read_settings

NOWHERE = "127.0.0.1:1"
Get = Callable[[str], Awaitable[str]]


@asynccontextmanager
async def application(env: dict[str, str], **changed: str) -> AsyncIterator[ASGIApp]:
    """That of a worker that was never started."""
    settings = {name.removeprefix("ORDER_WORKER_").lower(): value for name, value in env.items()}
    worker, app = build(read_settings(**{**settings, **changed}))
    try:
        yield app
    finally:
        await worker.site.close()
        await worker.engine.dispose()
        await worker.inquiries.engine.dispose()


def client_of(app: ASGIApp, below: str = "") -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=f"http://worker{below}")


@asynccontextmanager
async def page(env: dict[str, str], **changed: str) -> AsyncIterator[Get]:
    """What the page answers, as text."""
    async with application(env, **changed) as app, client_of(app) as client:

        async def get(path: str) -> str:
            answer = await client.get(path)
            assert answer.status_code == 200
            return re.sub(r"\s+", " ", entities.unescape(re.sub(r"<[^>]*>", " ", answer.text)))

        yield get


@asynccontextmanager
async def silent_server() -> AsyncIterator[str]:
    """Takes connections and never says a word."""
    talking: list[asyncio.StreamWriter] = []
    async with await asyncio.start_server(lambda _, w: talking.append(w), "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        yield f"{host}:{port}"
        for writer in talking:
            writer.close()


def rejected(order_id: object) -> bytes:
    reason = Reason(code=ReasonCode.UNKNOWN_USER)
    now = datetime.now(UTC)
    event = OrderRejected.model_validate(
        {"order_id": order_id, "user_id": 1, "reasons": (reason,), "retryable": False, "placed_at": now,
         "decided_at": now}
    )  # fmt: skip
    return event.model_dump_json().encode()


def an_order(shop: Shop, seconds_ago: float) -> None:
    shop.sql(
        "INSERT INTO orders (id, user_id, total_amount, placed_at, created_at) VALUES ($1, 1, 1, $2, $2)",
        uuid4(),
        datetime.now(UTC) - timedelta(seconds=seconds_ago),
    )


async def test_without_kafka_the_rest_is_shown(env: dict[str, str], shop: Shop):
    shop.stock_up({1: 1})
    an_order(shop, 60)
    known = uuid4()
    shop.sql(
        "INSERT INTO order_outcomes VALUES ($1, 'rejected', '', 'order-placed', 0, 3, $2, now())",
        known,
        rejected(known).decode(),
    )
    async with page(env, kafka_bootstrap_servers=NOWHERE) as get:
        text = await get("/")
        assert text.count("Not shown. Kafka: ") == 4
        assert "confirmed 1" in text
        assert "rejected –" in text
        text = await get(f"/explain/{known}")
        assert "because there was no such user. Whether it was published is not known" in text
        assert "Without the topics. Kafka" in text
        assert "The ledger has no such order." in await get(f"/explain/{uuid4()}")
        assert "Kafka: " in await get("/dead-letters/0:0")


async def test_what_the_looks_saw_is_drawn(env: dict[str, str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(history, "INTERVAL_SECONDS", 0.0)
    settings = {name.removeprefix("ORDER_WORKER_").lower(): value for name, value in env.items()}
    worker, app = build(read_settings(**{**settings, "kafka_bootstrap_servers": NOWHERE}))
    ours, others = TopicPartition("placed", 0), TopicPartition("placed", 1)
    async with client_of(app) as client:
        assert "Nothing yet" in (await client.get("/")).text
        worker.watch.remember({ours: 10, others: 20}, {ours: 4})
        worker.watch.remember({ours: 10, others: 20}, {ours: 9, others: 18})
        html = (await client.get("/")).text
    assert "Waiting, last hour: lag 3; highest 26" in html
    assert html.count("<polyline") == 3, "no batch has ended"
    await worker.site.close()
    await worker.engine.dispose()
    await worker.inquiries.engine.dispose()


async def test_mounted_below_a_path_it_answers_as_at_the_top(env: dict[str, str]):
    async with application(env, kafka_bootstrap_servers=NOWHERE) as app:
        mounted = Starlette(routes=[Mount("/shop/worker", app)])
        async with client_of(app) as at_the_top, client_of(mounted, "/shop/worker") as below:
            for path in ("/", "/docs", "/docs.json", "/asyncapi.json", "/metrics", "/dead-letters/x"):
                answers = [await client.get(path) for client in (at_the_top, below)]
                reported = [(answer.status_code, answer.headers["content-type"]) for answer in answers]
                assert reported[0] == reported[1], path
                assert reported[0][0] != 404, path


async def test_without_the_database_the_rest_is_shown(env: dict[str, str], topics: TopicNames):
    publish(
        env["ORDER_WORKER_KAFKA_BOOTSTRAP_SERVERS"], topics.order_rejected, [rejected(uuid4()), b"no event"]
    )
    async with page(env, database_url=f"postgresql://x:secret@{NOWHERE}/x") as get:
        text = await get("/")
        assert "the database gives no answer: connection refused" in text
        assert "confirmed – rejected 1" in text
        assert "there was no such user" in text
        assert "1 of the newest records of the topic are not rejections" in text
        assert "There are none." in text
        assert "secret" not in text
        assert "Not shown. the database: connection refused" in await get(f"/explain/{uuid4()}")


async def test_servers_that_say_nothing_cost_two_seconds_and_no_more(env: dict[str, str]):
    async with (
        silent_server() as silent,
        page(env, kafka_bootstrap_servers=silent, database_url=f"postgresql://x@{silent}/x") as get,
    ):
        began = time.monotonic()
        texts = await asyncio.gather(*(get("/") for _ in range(20)))
        assert time.monotonic() - began < 4
        assert "Kafka: no answer within 2 s" in texts[0]
        assert re.search(
            r"the database(: no answer within 2 s| gives no answer: no answer in time)", texts[0]
        )


async def test_of_one_kind_of_question_few_are_asked_at_a_time(env: dict[str, str]):
    async with (
        silent_server() as silent,
        page(env, kafka_bootstrap_servers=silent, database_url=f"postgresql://x@{silent}/x") as get,
    ):
        texts = await asyncio.gather(*(get("/dead-letters/0:0") for _ in range(10)))
        busy = [text for text in texts if "too many requests at this moment" in text]
        assert len(busy) == 10 - site.MOST_ASKING


@pytest.fixture
def client_options(services: Services) -> dict[str, str]:
    return {"bootstrap_servers": services.kafka_bootstrap_servers}


async def test_the_tail_holds_the_newest_of_each_partition(
    topics: TopicNames, client_options: dict[str, str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(tail, "_FIRST_STEP", 2)
    kafka, topic = client_options["bootstrap_servers"], topics.order_rejected
    publish(kafka, topic, [b"%d" % n for n in range(100)], partition=0)
    publish(kafka, topic, [b"a", b"b", b"c"], partition=2)
    async with reader(client_options) as consumer:
        found = await read_tail(consumer, topic, at_most=20, max_bytes=1_000_000)
        values = [r.value for r in found.records if r.partition == 0]
        assert values == [b"%d" % n for n in range(99, 99 - len(values), -1)]
        assert 17 <= len(values) <= 20
        assert [r.value for r in found.records if r.partition == 2] == [b"c", b"b", b"a"]
        assert (found.cut, found.read_from[0]) == (frozenset({0}), 100 - len(values))
        everything = await read_tail(consumer, topic, at_most=1_000, max_bytes=1_000_000)
        assert (len(everything.records), everything.cut) == (103, frozenset())
        nothing = await read_tail(consumer, topics.dead_letter, at_most=10, max_bytes=1_000)
        assert nothing.records == ()


async def test_pages_hold_each_record_once_the_newest_first(
    topics: TopicNames, client_options: dict[str, str]
):
    kafka, topic = client_options["bootstrap_servers"], topics.order_rejected
    publish(kafka, topic, [b"%d" % n for n in range(150)], partition=0)
    publish(kafka, topic, [b"%d" % n for n in range(150, 190)], partition=2)
    publish(kafka, topic, [b"%d" % n for n in range(190, 192)], partition=3)

    async def pages(at_most: int, look_at: int, max_bytes: int, divisor: int = 1) -> list[list[int]]:
        found, before = [], None
        async with reader(client_options) as consumer:
            while before != {}:
                page = await read_page(
                    consumer,
                    topic,
                    before,
                    lambda record: int(record.value) % divisor == 0,
                    at_most=at_most,
                    look_at=look_at,
                    max_bytes=max_bytes,
                )
                assert page.looked_at < look_at + 12
                found.append([int(record.value or b"") for record in page.records])
                before = {number: page.read_from[number] for number in page.cut}
        return found

    for found in (await pages(50, 1_000, 1_000_000), await pages(1_000, 40, 1_000_000)):
        assert sorted(number for page in found for number in page) == list(range(192))
        assert len(found) >= 4
        of_first = [number for page in found for number in page if number < 150]
        assert of_first == sorted(of_first, reverse=True)
    tenths = await pages(1_000, 40, 1_000_000, divisor=10)
    assert sorted(number for page in tenths for number in page) == list(range(0, 192, 10))
    small = await pages(1_000, 1_000, 60)
    assert sorted(number for page in small for number in page) == list(range(192))


async def test_large_records_end_the_tail_early(topics: TopicNames, client_options: dict[str, str]):
    kafka, topic = client_options["bootstrap_servers"], topics.dead_letter
    publish(kafka, topic, [b"x" * 100_000] * 60, partition=1)
    async with reader({**client_options, "max_partition_fetch_bytes": 200_000}) as consumer:
        found = await read_tail(consumer, topic, at_most=1_000, max_bytes=1_000_000)
        assert 1_000_000 <= sum(map(size_of, found.records)) < 1_200_000
        # Somewhere in the first step: nothing is known to be whole.
        assert (found.cut, found.read_from[1]) == (frozenset({1}), 60)


async def test_orders_are_counted_by_second_the_newest_first_and_not_more_than_allowed(
    session: AsyncSession, shop: Shop
):
    shop.stock_up({1: 1})
    for seconds_ago in (4_000, 30, 20, 20, 10):
        an_order(shop, seconds_ago)
    since = datetime.now(UTC) - timedelta(hours=1)
    counted = await sales.list_orders_by_second(session, since, 100)
    assert sum(number for _, number in counted) == 4
    assert [time for time, _ in counted] == sorted((time for time, _ in counted), reverse=True)
    assert all(time.microsecond == 0 for time, _ in counted)
    assert sum(number for _, number in await sales.list_orders_by_second(session, since, 2)) == 2
