"""The page's routes. All of them only read; `sources` has the queries."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeVar
from uuid import UUID

from aiokafka import ConsumerRecord
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from worker.http.page import rendering
from worker.http.page.cached_query import CachedQuery, Panel
from worker.http.page.chart import charts
from worker.http.page.overview import Overview, ThisWorker, outcomes, own_counts
from worker.http.page.parameters import (
    BadParameterError,
    Pairs,
    letter_query,
    order_query,
    rejection_query,
)
from worker.http.page.sources import Sources
from worker.http.server import file_route
from worker.observability.health import Health
from worker.observability.history import History
from worker.observability.metrics import Metrics
from worker.operations.dead_letters.letter import parse_place

T = TypeVar("T")
Q = TypeVar("Q")

MOST_ASKING: Final = 2  # for an order or a letter at a time: each reads in the topics
ORDER_SECONDS: Final = 3.0
LIST_SECONDS: Final = 3.0
REFRESH_SECONDS: Final = 5
_FILES: Final = Path(__file__).parent
_HEADERS: Final = {
    "content-security-policy": (
        "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none';"
        " frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}
_BUSY: Final[Panel[Any]] = Panel(None, "too many requests at this moment: load the page again")


class Site:
    """The page of one worker. No query is sent before the first request."""

    def __init__(self, sources: Sources, health: Health, metrics: Metrics, history: History) -> None:
        self._sources = sources
        self._health = health
        self._metrics = metrics
        self._history = history
        self._started_at = datetime.now(UTC)
        self._lag = CachedQuery("Kafka", sources.lag)
        self._rejections = CachedQuery("Kafka", sources.rejections)
        self._letters = CachedQuery("Kafka", sources.letters)
        self._orders = CachedQuery("the database", sources.orders)
        self._viewer_queries: set[CachedQuery[Any]] = set()

    def routes(self) -> Sequence[Route]:
        """What `server.Application` serves of it."""
        return (
            Route("/", self._overview),
            Route("/orders", self._orders_or_search),
            Route("/rejections", self._rejected),
            Route("/dead-letters", self._dead_letters),
            Route("/explain/{order_id}", self._explain),
            Route("/dead-letters/{place}", self._letter),
            Route("/records/{topic}/{place}", self._record),
            file_route("/assets/page.css", _FILES / "style.css", "text/css"),
            file_route("/assets/page.svg", _FILES / "icon.svg", "image/svg+xml"),
        )

    async def close(self) -> None:
        """End all running queries."""
        asked: tuple[CachedQuery[Any], ...] = (
            self._lag,
            self._rejections,
            self._letters,
            self._orders,
            *self._viewer_queries,
        )
        await asyncio.gather(*(query.close() for query in asked))

    async def _overview(self, request: Request) -> Response:
        lag, rejected, letters, orders = await asyncio.gather(
            self._lag.answer(), self._rejections.answer(), self._letters.answer(), self._orders.answer()
        )
        now = datetime.now(UTC)
        refresh = REFRESH_SECONDS if "refresh" in request.query_params else 0
        shown = Overview(
            now,
            self._sources.settings.group_id,
            lag,
            outcomes(now, orders, rejected),
            rejected,
            letters,
            self._this_worker(),
            refresh,
            charts(self._history.points(clock := time.monotonic()), clock),
        )
        return _page(rendering.overview_page(shown))

    def _this_worker(self) -> ThisWorker:
        state = self._health.describe()
        samples = [(s.name, s.value) for metric in self._metrics.registry.collect() for s in metric.samples]
        return ThisWorker(
            bool(state["ready"]),
            self._health.troubles(),
            tuple(self._health.partitions()),
            self._started_at,
            own_counts(samples),
        )

    async def _orders_or_search(self, request: Request) -> Response:
        if "id" not in request.query_params:
            return await self._list(
                request, order_query, "the database", self._sources.listed_orders, rendering.orders_page
            )
        text = request.query_params["id"].strip()
        order_id = _order_id(text)
        if order_id is None:
            return _no_order_id(text, rendering.TOP)
        return RedirectResponse(f"explain/{order_id}", 303, _HEADERS)

    async def _rejected(self, request: Request) -> Response:
        return await self._list(
            request, rejection_query, "Kafka", self._sources.listed_rejections, rendering.rejections_page
        )

    async def _dead_letters(self, request: Request) -> Response:
        return await self._list(
            request, letter_query, "Kafka", self._sources.listed_letters, rendering.letters_page
        )

    async def _list(
        self,
        request: Request,
        read: Callable[[Pairs], Q],
        server: str,
        ask: Callable[[Q], Awaitable[T]],
        render: Callable[[Q, Panel[T]], str],
    ) -> Response:
        """One list, as its query parameters ask; 400 with the name of a wrong parameter."""
        try:
            query = read(request.query_params.multi_items())
        except BadParameterError as error:
            return _page(rendering.trouble_page(str(error), rendering.TOP), 400)
        return _page(render(query, await self._ask(server, lambda: ask(query), LIST_SECONDS)))

    async def _explain(self, request: Request) -> Response:
        order_id = _order_id(request.path_params["order_id"])
        if order_id is None:
            return _no_order_id(request.path_params["order_id"], rendering.ONE_DOWN)
        whole = await self._ask("Kafka or the database", lambda: self._sources.order(order_id), ORDER_SECONDS)
        if whole.value:
            return _page(rendering.order_page(order_id, whole.value))
        rows = await self._ask("the database", lambda: self._sources.rows_of(order_id))
        return _page(rendering.order_page(order_id, rows.value, rows.trouble, whole.trouble))

    async def _letter(self, request: Request) -> Response:
        topic, text = self._sources.topics.dead_letter, request.path_params["place"]
        return await self._one_record(topic, text, "dead letter", rendering.letter_page, rendering.ONE_DOWN)

    async def _record(self, request: Request) -> Response:
        topic, text = request.path_params["topic"], request.path_params["place"]
        if topic not in self._sources.topics.all:
            names = ", ".join(self._sources.topics.all)
            return _no_record(f"No worker of this group has the topic {topic}: it has {names}.", 404)
        return await self._one_record(topic, text, "record", rendering.record_page, rendering.TWO_DOWN)

    async def _one_record(
        self, topic: str, text: str, what: str, render: Callable[[ConsumerRecord], str], root: str
    ) -> Response:
        place = parse_place(text)
        if place is None:
            return _no_record(f"The place of a {what} is written like 2:17.", 400, root)
        found = await self._ask("Kafka", lambda: self._sources.record(topic, place))
        if found.trouble:
            return _no_record(found.trouble, root=root)
        if found.value is None:
            return _no_record(f"No {what} lies at {place}, or not any more.", 404, root)
        return _page(render(found.value))

    async def _ask(
        self, server: str, ask: Callable[[], Awaitable[T]], limit_seconds: float | None = None
    ) -> Panel[T]:
        """One query of one viewer. Few run at a time; those that are being cancelled count too."""
        self._viewer_queries = {query for query in self._viewer_queries if query.is_open}
        if len(self._viewer_queries) >= MOST_ASKING:
            return _BUSY
        query = CachedQuery(server, ask, limit_seconds) if limit_seconds else CachedQuery(server, ask)
        self._viewer_queries.add(query)
        return await query.answer()


def _no_record(trouble: str, status: int = 200, root: str = rendering.TWO_DOWN) -> Response:
    return _page(rendering.trouble_page(trouble, root), status)


def _no_order_id(text: str, root: str) -> Response:
    trouble = "Write an order id: a UUID like 0b6f5c1e-5d0e-4c1e-9d0c-6a4a0c1d2e3f."
    return _page(rendering.trouble_page(trouble, root, searched=text), 400)


def _order_id(text: str) -> UUID | None:
    """An order id in any form in which people copy a UUID."""
    try:
        return UUID(text)
    except ValueError:
        return None


def _page(html: str, status: int = 200) -> Response:
    return Response(html.encode(errors="replace"), status, _HEADERS, "text/html")
