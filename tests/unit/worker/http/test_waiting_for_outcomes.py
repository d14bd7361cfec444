import asyncio
from typing import Any, cast
from uuid import uuid4

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request

from worker.http import outcomes
from worker.http.connections import bounded
from worker.http.outcomes import LettersOfOrders, OutcomeEndpoint
from worker.http.queries import Inquiries, NoAnswerError
from worker.observability.health import Health


async def _for_ever() -> Any:
    await asyncio.Event().wait()


class _Broken:
    def session(self) -> Any:
        raise RuntimeError("a fault of ours")


async def _no_letters() -> LettersOfOrders:
    return LettersOfOrders({}, older=False)


async def test_a_look_that_fails_is_no_answer_and_never_says_undecided():
    endpoint = OutcomeEndpoint(cast("Inquiries", _Broken()), _no_letters, Health())
    with pytest.raises(NoAnswerError, match="log says why"):
        await endpoint._within(5, uuid4(), Request({"type": "http"}, _for_ever))
    await endpoint.close()


async def test_clients_that_went_away_keep_nobody_from_waiting(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(outcomes, "MAX_WAITING", 2)
    endpoint = OutcomeEndpoint(cast("Inquiries", _Broken()), _no_letters, Health())

    async def undecided(_order_ids: Any) -> Any:
        return {}

    monkeypatch.setattr(endpoint, "_find", undecided)
    application = Starlette(routes=endpoint.routes())
    server = uvicorn.Server(uvicorn.Config(application, log_config=None, lifespan="off", port=0, **bounded()))
    serving = asyncio.create_task(server.serve())
    await _until(lambda: server.started)
    port = server.servers[0].sockets[0].getsockname()[1]

    async def ask(wait: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"GET /outcomes/{uuid4()}?wait={wait} HTTP/1.1\r\nHost: shop\r\n\r\n".encode())
        return reader, writer

    for _ in range(outcomes.MAX_WAITING):
        _, writer = await ask("PT20S")
        await _until(lambda: endpoint._waiting)
        writer.close()
    await _until(lambda: not endpoint._waiting)
    reader, writer = await ask("PT0.1S")
    assert b" 404 " in await reader.readline()
    writer.close()
    server.should_exit = True
    await serving
    await endpoint.close()


async def _until(is_so: Any) -> None:
    async with asyncio.timeout(60):
        while not is_so():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
