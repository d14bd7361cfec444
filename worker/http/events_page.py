"""The page at /docs: FastStream's own, from the AsyncAPI document, with files of this worker alone."""

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Final

from faststream.asgi import AsgiResponse, AsyncAPIRoute, get
from faststream.asgi.handlers import GetHandler
from faststream.asgi.types import Scope
from faststream.specification.asyncapi.site import get_asyncapi_html
from faststream.specification.base import SpecificationFactory
from starlette.routing import Route

from worker.http.server import file_route

_ASSETS: Final = Path(__file__).parent / "assets"
# Relative, as all our links: behind a proxy that strips a prefix of the path they are found as well.
_SCRIPT: Final = "assets/asyncapi.js"
_STYLE: Final = "assets/asyncapi.css"
# Those of FastStream are of another host; without any, a browser asks for one at the top of this one.
_ICONS: Final = re.compile(r'(?:<link rel="icon"[^>]*>\s*)+')
_OUR_ICON: Final = '<link rel="icon" href="assets/page.svg" type="image/svg+xml">'
_HTML: Final = {"content-type": "text/html; charset=utf-8"}


class EventsPage(AsyncAPIRoute):
    """`/docs` and `/docs.json`. No route to publish from, and nothing from elsewhere: it works offline."""

    def __init__(self) -> None:
        super().__init__("/docs", try_it_out_path=None)

    def __call__(self, schema: SpecificationFactory) -> GetHandler:
        @cache
        def page() -> bytes:
            html = get_asyncapi_html(
                schema.to_specification(),
                asyncapi_js_url=_SCRIPT,
                asyncapi_css_url=_STYLE,
                try_it_out_path=None,
            )
            return _ICONS.sub(_OUR_ICON, html, count=1).encode()

        @get(include_in_schema=False)
        async def docs(scope: Scope) -> AsgiResponse:
            return AsgiResponse(page(), 200, _HTML)

        return docs


def file_routes() -> Sequence[Route]:
    """The script and the style of the page."""
    return (
        file_route(
            f"/{_SCRIPT}", _ASSETS / "asyncapi.js.gz", "text/javascript", {"content-encoding": "gzip"}
        ),
        file_route(f"/{_STYLE}", _ASSETS / "asyncapi.css", "text/css"),
    )
