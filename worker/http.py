"""The HTTP endpoints: liveness, readiness, metrics, and the files of the AsyncAPI page."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from faststream.asgi import AsgiResponse, get
from prometheus_client import make_asgi_app

from worker.health import Health
from worker.metrics import Metrics

_ASSETS: Final = Path(__file__).parent / "assets"
ASYNCAPI_SCRIPT: Final = "/assets/asyncapi.js"
ASYNCAPI_STYLE: Final = "/assets/asyncapi.css"


def routes(health: Health, metrics: Metrics) -> Sequence[tuple[str, Any]]:
    """`/livez` answers while the event loop turns; `/readyz` is 503 with the reasons while one is away."""

    @get(include_in_schema=False)
    async def livez(_scope: Any) -> AsgiResponse:
        return _json(200, {"alive": True})

    @get(include_in_schema=False)
    async def readyz(_scope: Any) -> AsgiResponse:
        state = health.describe()
        return _json(200 if state["ready"] else 503, state)

    @get(include_in_schema=False)
    async def script(_scope: Any) -> AsgiResponse:
        return _file("asyncapi.js.gz", "text/javascript", {"content-encoding": "gzip"})

    @get(include_in_schema=False)
    async def style(_scope: Any) -> AsgiResponse:
        return _file("asyncapi.css", "text/css", {})

    return (
        ("/livez", livez),
        ("/readyz", readyz),
        ("/metrics", make_asgi_app(metrics.registry)),
        (ASYNCAPI_SCRIPT, script),
        (ASYNCAPI_STYLE, style),
    )


def _json(status: int, body: object) -> AsgiResponse:
    return AsgiResponse(json.dumps(body).encode(), status, headers={"content-type": "application/json"})


def _file(name: str, media_type: str, headers: dict[str, str]) -> AsgiResponse:
    content = (_ASSETS / name).read_bytes()
    return AsgiResponse(content, 200, headers={"content-type": f"{media_type}; charset=utf-8", **headers})
