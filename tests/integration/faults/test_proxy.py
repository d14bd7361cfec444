"""The proxy does to a connection what its verbs say, and leaves nothing behind."""

import asyncio
import gc
import socket
import threading
import time
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, suppress
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from tests.faults.proxy import Proxy
from tests.support.deadline import eventually
from tests.support.shop import Shop
from worker.sandbox.servers.ports import free_port, is_open

DEADLINE_SECONDS = 10
# "Nothing arrives" has no condition to wait for: this long nothing did. A slow machine cannot make it fail.
QUIET_SECONDS = 0.1


class Echo:
    """A server that answers everything with the same, and remembers it."""

    def __init__(self) -> None:
        self.received = b""
        self.opened = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[int]:
        answers: list[asyncio.Task[None]] = []
        server = await asyncio.start_server(
            lambda *ends: answers.append(asyncio.create_task(self._answer(*ends))), "127.0.0.1", 0
        )
        async with server:
            yield server.sockets[0].getsockname()[1]
        await in_time(asyncio.gather(*answers))

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.opened += 1
        with suppress(OSError):
            while chunk := await reader.read(1_000):
                self.received += chunk
                writer.write(chunk)
                await writer.drain()
        await closed(writer)


class Client:
    """One connection to the proxy."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def ask(self, text: bytes) -> bytes:
        self.writer.write(text)
        return await self.hear(len(text))

    async def hear(self, count: int) -> bytes:
        heard: bytes = await in_time(self.reader.readexactly(count))
        return heard

    async def is_reset(self) -> bool:
        try:
            await in_time(self.reader.read(1))
        except ConnectionResetError:
            return True
        return False


class Place:
    """An echo server, a proxy before it, and its clients."""

    def __init__(self, echo: Echo, proxy: Proxy) -> None:
        self.echo = echo
        self.proxy = proxy
        self._clients: list[Client] = []

    async def connect(self) -> Client:
        self._clients.append(Client(*await in_time(asyncio.open_connection("127.0.0.1", self.proxy.port))))
        return self._clients[-1]

    async def disconnect(self) -> None:
        for client in self._clients:
            await closed(client.writer)


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    echo = Echo()
    async with echo.running() as port:
        with Proxy(port) as proxy:
            place = Place(echo, proxy)
            yield place
            await place.disconnect()


async def in_time(result: Awaitable[Any]) -> Any:
    return await asyncio.wait_for(result, DEADLINE_SECONDS)


async def closed(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()


async def until(condition: Callable[[], Any]) -> None:
    # In a thread, so that the echo server can answer meanwhile.
    await asyncio.to_thread(eventually, condition, DEADLINE_SECONDS)


async def is_reset_at_once(port: int) -> bool:
    try:
        client = Client(*await in_time(asyncio.open_connection("127.0.0.1", port)))
    except ConnectionResetError:  # so early that not even connecting is seen to succeed
        return True
    try:
        return await client.is_reset()
    finally:
        await closed(client.writer)


async def nothing_arrives(client: Client) -> bool:
    """Neither a byte nor an end within a short time."""
    reading = asyncio.ensure_future(client.reader.read(1))
    done, _ = await asyncio.wait([reading], timeout=QUIET_SECONDS)
    reading.cancel()
    with suppress(asyncio.CancelledError):
        await reading
    return not done


async def test_it_carries_bytes_both_ways_and_the_end_of_either_stream(place: Place) -> None:
    client = await place.connect()
    assert await client.ask(b"hello") == b"hello"
    large = bytes(range(256)) * 4_000
    assert await client.ask(large) == large
    client.writer.write_eof()
    assert await in_time(client.reader.read()) == b"", "the server answers an end with an end"
    await until(lambda: place.proxy.connections == 0)


async def test_cut_resets_what_is_open_and_serves_what_comes(place: Place) -> None:
    first, second = await place.connect(), await place.connect()
    for client in (first, second):
        await client.ask(b"hello")
    place.proxy.cut()
    assert await first.is_reset()
    assert await second.is_reset()
    assert await (await place.connect()).ask(b"again") == b"again"


async def test_refuse_resets_what_is_open_and_what_comes_until_it_heals(place: Place) -> None:
    client = await place.connect()
    await client.ask(b"hello")
    place.proxy.refuse()
    assert await client.is_reset()
    assert await is_reset_at_once(place.proxy.port)
    assert place.echo.opened == 1
    place.proxy.heal()
    assert await (await place.connect()).ask(b"again") == b"again"


async def test_stall_keeps_connections_open_and_carries_nothing_until_it_heals(place: Place) -> None:
    old = await place.connect()
    await old.ask(b"hello")
    place.proxy.stall()
    new = await place.connect()
    old.writer.write(b"old")
    new.writer.write(b"new")
    assert await nothing_arrives(old)
    assert await nothing_arrives(new)
    assert place.echo.received == b"hello"
    assert place.echo.opened == 1
    place.proxy.heal()
    assert await old.hear(3) == b"old"
    assert await new.hear(3) == b"new"


async def test_stall_hides_that_the_other_end_is_gone(place: Place) -> None:
    client = await place.connect()
    await client.ask(b"hello")
    place.proxy.stall()
    client.writer.write(b"last words")
    client.writer.write_eof()
    assert await nothing_arrives(client)
    place.proxy.heal()
    assert await in_time(client.reader.read()) == b"last words"


async def test_a_connection_stalled_and_then_cut_is_reset(place: Place) -> None:
    client = await place.connect()
    place.proxy.stall()
    client.writer.write(b"hello")
    place.proxy.cut()
    assert await client.is_reset()


async def test_delay_holds_up_each_chunk_by_itself_and_keeps_their_order(place: Place) -> None:
    client = await place.connect()
    await client.ask(b"hello")
    place.proxy.delay(0.15)
    began = time.monotonic()
    for number in range(20):
        client.writer.write(b"%02d" % number)
        await until(lambda: not client.writer.transport.get_write_buffer_size())
    assert await client.hear(40) == b"".join(b"%02d" % number for number in range(20))
    assert 0.3 <= time.monotonic() - began < 3.0, "20 chunks one after the other take 6 s"


async def test_what_was_delayed_continues_when_it_heals(place: Place) -> None:
    client = await place.connect()
    await client.ask(b"hello")
    place.proxy.delay(3_600)
    client.writer.write(b"late")
    assert await nothing_arrives(client)
    place.proxy.heal()
    assert await client.hear(4) == b"late"


async def test_dropped_replies_are_lost_and_their_connection_is_reset_when_it_heals(
    place: Place,
) -> None:
    client, silent = await place.connect(), await place.connect()
    await client.ask(b"hello")
    await silent.ask(b"hi")
    place.proxy.drop_replies()
    client.writer.write(b"commit")
    await until(lambda: place.echo.received.endswith(b"commit"))
    await until(lambda: place.proxy.swallowed_bytes == len(b"commit"))
    assert await nothing_arrives(client)
    place.proxy.heal()
    assert await client.is_reset()
    assert await silent.ask(b"still here") == b"still here", "it has lost nothing"


async def test_replies_can_be_dropped_from_one_request_on(place: Place) -> None:
    client = await place.connect()
    place.proxy.drop_replies(after=b"COMMIT")
    assert await client.ask(b"BEGIN") == b"BEGIN"
    client.writer.write(b"COMMIT")
    await until(lambda: place.proxy.swallowed_bytes == len(b"COMMIT"))
    client.writer.write(b"SELECT")
    await until(lambda: place.echo.received.endswith(b"SELECT"))
    assert await nothing_arrives(client)
    place.proxy.stall()
    assert await nothing_arrives(client)
    place.proxy.heal()
    assert await client.is_reset()


async def test_a_server_that_is_not_there_is_a_reset() -> None:
    with Proxy(free_port()) as proxy:
        assert await is_reset_at_once(proxy.port)


@pytest.mark.parametrize("verb", ["heal", "stall", "drop_replies", "refuse"])
async def test_at_the_end_connections_are_reset_and_neither_port_nor_thread_is_left(verb: str) -> None:
    async with Echo().running() as port:
        with Proxy(port) as proxy:
            client = Client(*await asyncio.open_connection("127.0.0.1", proxy.port))
            await client.ask(b"hello")
            getattr(proxy, verb)()
            client.writer.write(b"last words")
        # Whether they came back before the end is chance; that there is an end is not.
        with suppress(ConnectionResetError):
            await in_time(client.reader.read())
        await closed(client.writer)
    assert not is_open(proxy.port)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("proxy")]


def test_a_connection_that_comes_at_the_very_end_is_closed_as_well() -> None:
    with (
        warnings.catch_warnings(record=True, action="always") as of_what_is_left_open,
        socket.create_server(("127.0.0.1", 0)) as server,
    ):
        for _ in range(40):
            with ExitStack() as clients, Proxy(server.getsockname()[1]) as proxy:
                for _ in range(8):
                    clients.enter_context(socket.create_connection(("127.0.0.1", proxy.port)))
        gc.collect()
    assert [str(warning.message) for warning in of_what_is_left_open] == []


def test_a_port_that_is_taken_is_an_error_and_leaves_no_thread() -> None:
    with Proxy(free_port()) as first:
        with pytest.raises(OSError, match="address already in use"), Proxy(free_port(), port=first.port):
            pass
        names = [thread.name for thread in threading.enumerate() if thread.name.startswith("proxy")]
        assert len(names) == 1


@pytest.fixture
def postgres(database_url: str) -> Iterator[Proxy]:
    parts = urlsplit(database_url)
    with Proxy(parts.port or 5432, target_host=parts.hostname or "127.0.0.1") as proxy:
        yield proxy


async def test_a_commit_whose_reply_is_lost_has_committed(postgres: Proxy, shop: Shop) -> None:
    user = urlsplit(shop.database_url).netloc.rpartition("@")[0]
    url = urlunsplit(urlsplit(shop.database_url)._replace(netloc=f"{user}@127.0.0.1:{postgres.port}"))
    connection = await asyncpg.connect(url)
    await connection.execute("BEGIN")
    await connection.execute("INSERT INTO categories (id, name) VALUES (7, 'Lost and found')")
    postgres.drop_replies(after=b"COMMIT")
    commit = asyncio.create_task(connection.execute("COMMIT"))
    count = "SELECT count(*) FROM categories WHERE id = 7"
    await until(lambda: shop.value(count) == 1)
    await until(lambda: postgres.swallowed_bytes)
    assert not commit.done(), "the client cannot know"
    postgres.heal()
    with pytest.raises((OSError, asyncpg.PostgresConnectionError)):
        await in_time(commit)
