"""The HTTP endpoints, all read only: liveness and readiness; and the application that serves all."""

import json
import logging
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from faststream.asgi import AsgiFastStream
from faststream.asgi.types import Receive, Scope, Send
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from worker.failures import outage_text
from worker.http.connections import bounded
from worker.observability.health import Health

_READING: Final = ("GET", "HEAD")
_HOST: Final = re.compile("https?://[^/]*", re.IGNORECASE)
# FastStream's page for /docs has a script in its text and compiles schemas: the policy allows that and
# nothing of another host. The page at / has a stricter one (`page.site`).
_GUARDS: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (
        b"content-security-policy",
        b"default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval';"
        b" style-src 'self' 'unsafe-inline'; img-src 'self' data:;"
        b" base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
)


class Application(AsgiFastStream):
    """FastStream's application, which serves `routes` as well."""

    def __init__(self, *brokers: Any, routes: Sequence[Route], **options: Any) -> None:
        self._starlette = Starlette(routes=routes, exception_handlers={404: _unknown_path})
        self._starlette.router.redirect_slashes = False
        super().__init__(*brokers, **options)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Add headers with which a browser contacts no other host, and lets no other site embed the answer.

        A server that goes away at start or shutdown is logged in one line, without a traceback.
        """

        async def send_in_one_line(message: Any) -> None:
            # FastStream sends this while it handles the error.
            error = sys.exception() if message["type"].endswith(".failed") else None
            if error and (text := outage_text(error)):
                message = {**message, "message": f"{text}: this worker ends, to be started again"}
            await send(message)

        async def send_guarded(message: Any) -> None:
            if message["type"] == "http.response.start":
                given = {name for name, _ in message["headers"]}
                message["headers"] = [*message["headers"], *(h for h in _GUARDS if h[0] not in given)]
            await send(message)

        if scope["type"] == "http" and scope["method"] not in _READING:
            # Some of the applications below, that of the metrics for one, answer to any method.
            refused = json_response(405, {"error": "this can only be read"}, {"allow": ", ".join(_READING)})
            await refused(scope, receive, send_guarded)
        elif scope["type"] == "http":
            await super().__call__(_at_the_top(_without_host(_in_utf8(scope))), receive, send_guarded)
        else:
            await super().__call__(scope, receive, send_in_one_line if scope["type"] == "lifespan" else send)

    async def run(
        self, log_level: int = logging.INFO, run_extra_options: dict[str, Any] | None = None
    ) -> None:
        """As `faststream run` calls it: with bounded connections as well."""
        await super().run(log_level, {**bounded(), **(run_extra_options or {})})

    async def not_found(self, scope: Scope, receive: Receive, send: Send) -> None:
        """FastStream calls this for a path that it does not know."""
        if scope["type"] != "http":
            return await super().not_found(scope, receive, send)
        return await self._starlette(scope, receive, send)


def _in_utf8(scope: Scope) -> Scope:
    """With headers that can be decoded; the application of the metrics expects no others."""
    headers = [(name, value.decode("utf-8", "replace").encode()) for name, value in scope["headers"]]
    return {**scope, "headers": headers}


def _without_host(scope: Scope) -> Scope:
    """With the path alone, where a client sends a whole URL: HTTP allows that, and uvicorn leaves it so."""
    host = _HOST.match(scope["path"])
    return {**scope, "path": scope["path"][host.end() :] or "/"} if host else scope


def _at_the_top(scope: Scope) -> Scope:
    """Serve as if not mounted: FastStream compares whole paths, and all our links are relative."""
    root, path = scope.get("root_path", "").rstrip("/"), scope["path"]
    if not root or not path.startswith(f"{root}/"):
        return scope
    return {**scope, "path": path.removeprefix(root), "root_path": ""}


def routes(health: Health) -> Sequence[Route]:
    """`/livez` answers while the event loop runs; `/readyz` is 503, with reasons, while a server is away."""

    async def livez(_request: Request) -> Response:
        return json_response(200, {"alive": True})

    async def readyz(_request: Request) -> Response:
        state = health.describe()
        return json_response(200 if state["ready"] else 503, state)

    return Route("/livez", livez), Route("/readyz", readyz)


def file_route(path: str, file: Path, media_type: str, headers: Mapping[str, str] | None = None) -> Route:
    """Serves one file."""
    sent = {"x-content-type-options": "nosniff", "cache-control": "no-cache", **(headers or {})}

    async def send(_request: Request) -> Response:
        return FileResponse(file, media_type=media_type, headers=sent)

    return Route(path, send)


async def _unknown_path(_request: Request, _error: Exception) -> Response:
    return json_response(404, {"error": "nothing is served here: the page is at /, the events are at /docs"})


def json_response(status: int, body: object, headers: Mapping[str, str] | None = None) -> Response:
    """An answer that must not be cached: what is undecided now is decided soon."""
    sent = {"cache-control": "no-store", **(headers or {})}
    return Response(json.dumps(body).encode(), status, sent, "application/json")
