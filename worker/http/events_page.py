"""The AsyncAPI document, and the page at /docs that shows it, with no files from other hosts."""

import json
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final, cast

from faststream.asgi import AsgiResponse, AsyncAPIRoute, get
from faststream.asgi.handlers import GetHandler
from faststream.asgi.types import Scope
from faststream.specification.asyncapi.site import get_asyncapi_html
from faststream.specification.base import SpecificationFactory
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from contracts import asyncapi
from worker.http.server import file_route
from worker.settings import Settings

_ASSETS: Final = Path(__file__).parent / "assets"
# Relative, as all our links: behind a proxy that strips a prefix of the path they are found as well.
_SCRIPT: Final = "assets/asyncapi.js"
_STYLE: Final = "assets/asyncapi.css"
# Those of FastStream are of another host; without any, a browser asks for one at the top of this one.
_ICONS: Final = re.compile(r'(?:<link rel="icon"[^>]*>\s*)+')
_OUR_ICON: Final = '<link rel="icon" href="assets/page.svg" type="image/svg+xml">'
_HTML: Final = {"content-type": "text/html; charset=utf-8"}


class EventsDocument:
    """The AsyncAPI document with this worker's brokers, topics and group. Built at the first request."""

    title = "Order worker"

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._json = ""

    def to_json(self) -> str:
        """As FastStream's page calls it."""
        if not self._json:
            settings = self._settings
            is_secure = settings.kafka_security_protocol != "PLAINTEXT"
            document = asyncapi.document(
                settings.topics,
                settings.kafka_bootstrap_servers.split(","),
                "kafka-secure" if is_secure else "kafka",
                settings.group_id,
            )
            self._json = json.dumps(document, ensure_ascii=False)
        return self._json


class EventsPage(AsyncAPIRoute):
    """`/docs` shows our document. `/docs.json` is FastStream's own, with types and topics only.

    There is no route to publish from, and nothing is loaded from other hosts: it works offline.
    """

    def __init__(self, document: EventsDocument) -> None:
        super().__init__("/docs", try_it_out_path=None)
        self._document = document

    def __call__(self, _schema: SpecificationFactory) -> GetHandler:
        @cache
        def page() -> bytes:
            html = get_asyncapi_html(
                cast("Any", self._document),
                asyncapi_js_url=_SCRIPT,
                asyncapi_css_url=_STYLE,
                try_it_out_path=None,
            )
            return _ICONS.sub(_OUR_ICON, html, count=1).encode()

        @get(include_in_schema=False)
        async def docs(scope: Scope) -> AsgiResponse:
            return AsgiResponse(page(), 200, _HTML)

        return docs


def routes(document: EventsDocument) -> Sequence[Route]:
    """`/asyncapi.json`, and the script and the style of the page."""

    async def asyncapi_json(_request: Request) -> Response:
        return Response(document.to_json(), media_type="application/json")

    return (
        Route("/asyncapi.json", asyncapi_json),
        file_route(
            f"/{_SCRIPT}", _ASSETS / "asyncapi.js.gz", "text/javascript", {"content-encoding": "gzip"}
        ),
        file_route(f"/{_STYLE}", _ASSETS / "asyncapi.css", "text/css"),
    )
