"""Requests that no browser sends: each is answered or dropped, and none is a traceback in the log."""

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest
import uvicorn

from worker.app import build
from worker.http import connections
from worker.http.connections import BoundedConnection, bounded
from worker.settings import Settings

CHUNKED = b"GET /livez HTTP/1.1\r\nHost: shop\r\nTransfer-Encoding: chunked\r\n\r\n"
NO_CHUNK = b"ZZ\r\nhello"
LIVEZ = b"GET /livez HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n"
# More than the buffers between server and client hold, of a file of 640 KB.
LARGE = b"GET /assets/asyncapi.js HTTP/1.1\r\nHost: shop\r\n\r\n" * 40


@pytest.fixture
async def server() -> AsyncIterator[uvicorn.Server]:
    """A worker's HTTP server, without a worker behind it."""
    _, application = build(Settings())
    server = uvicorn.Server(uvicorn.Config(application, log_config=None, lifespan="off", port=0, **bounded()))
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    yield server
    server.should_exit = True
    await serving


@pytest.fixture
def port(server: uvicorn.Server) -> int:
    number: int = server.servers[0].sockets[0].getsockname()[1]
    return number


async def answer(port: int, *pieces: bytes) -> bytes:
    """The whole answer. A piece is sent once the previous one is answered."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    received = b""
    for piece in pieces:
        writer.write(piece)
        received += await asyncio.wait_for(reader.read(65_536), 10)
    received += await asyncio.wait_for(reader.read(), 10)
    writer.close()
    return received


@pytest.mark.parametrize(
    ("pieces", "status"),
    [
        ([b"GET /metrics HTTP/1.1\r\nHost: shop\r\nAccept: \xff\r\nConnection: close\r\n\r\n"], 200),
        ([CHUNKED + NO_CHUNK], 400),
        ([CHUNKED, NO_CHUNK], 200),
        ([b"GET /livez HTTP/1.1\r\nHost: shop\r\n\r\n", b"\x00\xff\r\n\r\n"], 200),
        ([LIVEZ.replace(b"/livez", b"http://shop:8000/livez")], 200),
        ([LIVEZ.replace(b"/livez", b"HTTP://shop/outcomes/7?wait=x")], 400),
    ],
    ids=[
        "header that is not UTF-8",
        "broken chunk",
        "broken chunk, later",
        "garbage, later",
        "whole URL",
        "whole URL with a query",
    ],
)
async def test_an_odd_request_is_no_traceback_in_the_log(
    port: int, pieces: list[bytes], status: int, caplog: pytest.LogCaptureFixture
):
    assert (await answer(port, *pieces)).startswith(b"HTTP/1.1 %d " % status)
    assert [r for r in caplog.records if r.exc_info or r.levelno > logging.WARNING] == []


def is_not_read(connection: object) -> bool:
    return isinstance(connection, BoundedConnection) and connection.flow.write_paused


async def test_clients_that_do_not_read_keep_no_probe_from_its_answer(
    server: uvicorn.Server, port: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(connections, "MOST_CONNECTIONS", 3)
    silent = []
    for _ in range(connections.MOST_CONNECTIONS):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(LARGE)
        silent.append(writer)
    async with asyncio.timeout(60):
        while not all(map(is_not_read, server.server_state.connections)):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    for _ in range(3):
        assert (await answer(port, LIVEZ)).startswith(b"HTTP/1.1 200 ")
    for writer in silent:
        writer.transport.abort()
