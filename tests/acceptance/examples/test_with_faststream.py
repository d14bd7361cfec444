"""`examples/with_faststream.py`, and what it promises about transactions."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest
from faststream import FastStream
from sqlalchemy.ext.asyncio import AsyncSession

from db import catalog
from examples import with_faststream
from tests.acceptance.examples.users import connections_of, soon, users
from tests.support.group_offsets import committed_lag
from tests.support.kafka_topics import create_topics, delete_topics
from tests.support.publishing import publish
from tests.support.shop import Shop
from tests.support.subscriber import end_of
from worker.sandbox.servers.services import Services


@pytest.fixture
def topic(services: Services) -> Iterator[str]:
    """A topic of one partition, so that a record which stands still stops all that follow."""
    name = f"user-registered-{uuid4().hex[:8]}"
    create_topics(services.kafka_bootstrap_servers, {name: None}, 1)
    yield name
    delete_topics(services.kafka_bootstrap_servers, [name])


class Registration:
    """The FastStream example on a topic of its own: register people, and wait for what comes of it."""

    def __init__(self, services: Services, database_url: str, topic: str) -> None:
        self.servers, self.topic, self.group_id = services.kafka_bootstrap_servers, topic, f"group-{topic}"
        self.app: FastStream = with_faststream.create_app(
            self.servers, database_url, topic=topic, group_id=self.group_id
        )

    async def register(self, *emails: str) -> None:
        await self.send(*(json.dumps({"email": email, "full_name": "Somebody"}).encode() for email in emails))

    async def send(self, *values: bytes | None, **options: Any) -> None:
        await asyncio.to_thread(publish, self.servers, self.topic, list(values), **options)

    async def all_acknowledged(self) -> None:
        await soon(lambda: committed_lag(self.servers, self.group_id, self.topic) == 0)


@pytest.fixture
async def registration(services: Services, database_url: str, topic: str) -> AsyncIterator[Registration]:
    made = Registration(services, database_url, topic)
    await made.app.start()
    yield made
    await made.app.stop()


async def test_a_record_becomes_a_user_and_the_same_record_again_no_second_one(
    registration: Registration, shop: Shop
):
    await registration.register("ada@example.com", "ada@example.com", "grace@example.com")
    await registration.all_acknowledged()
    assert users(shop) == ["ada@example.com", "grace@example.com"]


async def test_a_record_from_before_the_group_existed_is_not_missed(
    services: Services, database_url: str, topic: str, shop: Shop
):
    early = Registration(services, database_url, topic)
    await early.register("ada@example.com")
    await early.app.start()
    await soon(lambda: users(shop) == ["ada@example.com"])
    await early.app.stop()


async def test_after_an_error_nothing_stays_and_the_record_comes_again(
    registration: Registration, shop: Shop, monkeypatch: pytest.MonkeyPatch
):
    create_user, attempts = catalog.create_user, []

    async def fails_once_after_writing(session: AsyncSession, email: str, full_name: str) -> Any:
        attempts.append(email)
        if len(attempts) == 1:
            await create_user(session, "written-before-the-error@example.com", full_name)
            raise ConnectionError("gone")
        return await create_user(session, email, full_name)

    monkeypatch.setattr(catalog, "create_user", fails_once_after_writing)
    await registration.register("ada@example.com", "grace@example.com")
    await registration.all_acknowledged()
    assert attempts == ["ada@example.com", "ada@example.com", "grace@example.com"]
    assert users(shop) == ["ada@example.com", "grace@example.com"]


async def test_a_record_is_acknowledged_only_after_its_commit(
    registration: Registration, shop: Shop, commits_fail: Callable[[int], None]
):
    commits_fail(2)
    await registration.register("ada@example.com")
    await registration.all_acknowledged()
    assert users(shop) == ["ada@example.com"]
    assert shop.value("SELECT last_value FROM commits") == 3


async def test_a_record_that_is_no_user_stops_no_other(registration: Registration, shop: Shop):
    json_header = [("content-type", b"application/json")]
    await registration.send(None, b"", b"not json", b"[]", b'{"email": "x"}', b"\xff", headers=json_header)
    await registration.send(b"not json", b'{"email": "\\ud800", "full_name": "x"}', b"[" * 100_000)
    await registration.register("", "nul\0@example.com", "ada@example.com")
    await registration.all_acknowledged()
    assert users(shop) == ["ada@example.com"]


async def test_no_header_costs_a_user_or_names_a_topic_to_answer_to(
    registration: Registration, services: Services, shop: Shop
):
    """Of a header that is null or not UTF-8 the user was lost."""
    odd = {
        "null": ("a", None),
        "bytes": ("correlation_id", b"\xff"),
        "answer": ("reply_to", registration.topic.encode()),
    }
    for email, header in odd.items():
        record = json.dumps({"email": email, "full_name": "Somebody"}).encode()
        await registration.send(record, headers=[header])
    await registration.register("last")
    await registration.all_acknowledged()
    assert users(shop) == ["null", "bytes", "answer", "last"]
    assert end_of(services.kafka_bootstrap_servers, registration.topic, 0) == 4, "nobody answered"


async def test_the_faststream_example_leaves_no_connection_behind(
    services: Services, database_url: str, topic: str, shop: Shop
):
    made = Registration(services, database_url, topic)
    await made.app.start()
    await made.register("ada@example.com")
    await made.all_acknowledged()
    assert connections_of("shop-with-faststream", shop) == 1
    await made.app.stop()
    await soon(lambda: connections_of("shop-with-faststream", shop) == 0)
