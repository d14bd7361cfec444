"""The HTTP endpoints, all read only: liveness, readiness, metrics, outcomes, the files of the AsyncAPI page.

`routes` are those whose path is compared whole, as FastStream does; `paths` those with parameters.
"""

import json
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from faststream.asgi import AsgiFastStream, AsgiResponse, get
from faststream.asgi.types import Receive, Scope, Send
from prometheus_client import make_asgi_app

from contracts.envelope import outcome_headers
from contracts.fields import parse_order_id
from db.bulk.rows import LedgerRow
from db.worker import ledger
from worker.http.queries import Inquiries, NoAnswerError
from worker.observability.health import Health
from worker.observability.metrics import Metrics

_ASSETS: Final = Path(__file__).parent / "assets"
ASYNCAPI_SCRIPT: Final = "/assets/asyncapi.js"
ASYNCAPI_STYLE: Final = "/assets/asyncapi.css"


Answer = Callable[[Scope, Mapping[str, str]], Awaitable[AsgiResponse]]
"""what answers a request; it gets the parameters of the path"""

_PARAMETER: Final = re.compile(r"\{(\w+)\}")
_READING: Final = ("GET", "HEAD")


class Application(AsgiFastStream):
    """Serves `paths` as well: `/outcomes/{order_id}` and what answers there."""

    def __init__(self, *brokers: Any, paths: Sequence[tuple[str, Answer]], **options: Any) -> None:
        self._paths = [(_pattern(path), answer) for path, answer in paths]
        super().__init__(*brokers, **options)

    async def not_found(self, scope: Scope, receive: Receive, send: Send) -> None:
        """What FastStream calls for a path that it does not know."""
        if scope["type"] == "http":
            for pattern, answer in self._paths:
                if found := pattern.fullmatch(scope["path"]):
                    response = await _answered(answer, scope, found.groupdict())
                    return await response(scope, receive, send)
        return await super().not_found(scope, receive, send)


def paths(inquiries: Inquiries) -> Sequence[tuple[str, Answer]]:
    """`/outcomes/{order_id}` is the outcome's event, 404 while the order is undecided."""

    async def outcome(_scope: Scope, parameters: Mapping[str, str]) -> AsgiResponse:
        text = parameters["order_id"]
        order_id = parse_order_id(text)
        if order_id is None:
            return _json(400, {"order_id": text, "error": "not an order id: write a UUID of 36 characters"})
        try:
            async with inquiries.session() as session:
                row = (await ledger.find_outcomes(session, [order_id])).get(order_id)
        except NoAnswerError as error:
            return _json(503, {"order_id": text, "error": str(error)}, {"retry-after": "1"})
        return _event(row) if row else _json(404, {"order_id": text, "error": "undecided"})

    return (("/outcomes/{order_id}", outcome),)


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


def _pattern(path: str) -> re.Pattern[str]:
    """`{name}` is one part of a path, of any characters but a slash."""
    return re.compile(_PARAMETER.sub(r"(?P<\1>[^/]+)", path))


async def _answered(answer: Answer, scope: Scope, parameters: Mapping[str, str]) -> AsgiResponse:
    if scope["method"] not in _READING:
        return _json(405, {"error": "this can only be read"}, {"allow": ", ".join(_READING)})
    return await answer(scope, parameters)


def _event(row: LedgerRow) -> AsgiResponse:
    """The event as stored, with the headers it has in Kafka in the form that CloudEvents has for HTTP."""
    told = outcome_headers(str(row.order_id).encode(), f"order-{row.outcome}", row.decided_at, ())
    headers = {name.replace("_", "-"): value.decode() for name, value in told}
    return AsgiResponse(row.event.encode(), 200, headers={**headers, "etag": f'"{headers["ce-id"]}"'})


def _json(status: int, body: object, headers: Mapping[str, str] | None = None) -> AsgiResponse:
    # No one may keep it: what is undecided now is decided soon.
    told = {"content-type": "application/json", "cache-control": "no-store", **(headers or {})}
    return AsgiResponse(json.dumps(body).encode(), status, headers=told)


def _file(name: str, media_type: str, headers: dict[str, str]) -> AsgiResponse:
    content = (_ASSETS / name).read_bytes()
    return AsgiResponse(content, 200, headers={"content-type": f"{media_type}; charset=utf-8", **headers})
