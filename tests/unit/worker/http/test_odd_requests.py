"""Requests that no browser sends: each is answered or dropped, and none is a traceback in the log."""

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest
import uvicorn

from worker.app import build
from worker.http.connections import bounded
from worker.settings import Settings

CHUNKED = b"GET /livez HTTP/1.1\r\nHost: shop\r\nTransfer-Encoding: chunked\r\n\r\n"
NO_CHUNK = b"ZZ\r\nhello"


@pytest.fixture
async def port() -> AsyncIterator[int]:
    """Of a worker's HTTP server, without a worker behind it."""
    _, application = build(Settings())
    server = uvicorn.Server(uvicorn.Config(application, log_config=None, lifespan="off", port=0, **bounded()))
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    await serving


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
    ],
    ids=["header that is not UTF-8", "broken chunk", "broken chunk, later", "garbage, later"],
)
async def test_an_odd_request_is_no_traceback_in_the_log(
    port: int, pieces: list[bytes], status: int, caplog: pytest.LogCaptureFixture
):
    assert (await answer(port, *pieces)).startswith(b"HTTP/1.1 %d " % status)
    assert [r for r in caplog.records if r.exc_info or r.levelno > logging.WARNING] == []
