"""The paths of the page. All of them only read; what servers are asked is in `sources`."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeVar
from uuid import UUID

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from worker.http.page import rendering
from worker.http.page.overview import Myself, Overview, outcomes, own_counts
from worker.http.page.question import Panel, Question
from worker.http.page.sources import Sources
from worker.http.server import file_route
from worker.observability.health import Health
from worker.observability.metrics import Metrics
from worker.operations.dead_letters.letter import parse_place

T = TypeVar("T")

MOST_ASKING: Final = 2  # for an order or a letter at a time: each reads in the topics
ORDER_SECONDS: Final = 3.0
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
_BUSY: Final[Panel[Any]] = Panel(None, "others are asking at this moment: load the page again")


class Site:
    """The page of one worker. Nothing is asked before somebody looks."""

    def __init__(self, sources: Sources, health: Health, metrics: Metrics) -> None:
        self._sources = sources
        self._health = health
        self._metrics = metrics
        self._started_at = datetime.now(UTC)
        self._lag = Question("Kafka", sources.lag)
        self._rejections = Question("Kafka", sources.rejections)
        self._letters = Question("Kafka", sources.letters)
        self._orders = Question("the database", sources.orders)
        self._of_one: set[Question[Any]] = set()

    def routes(self) -> Sequence[Route]:
        """What `server.Application` serves of it."""
        return (
            Route("/", self._overview),
            Route("/orders", self._search),
            Route("/explain/{order_id}", self._explain),
            Route("/dead-letters/{place}", self._letter),
            file_route("/assets/page.css", _FILES / "style.css", "text/css"),
            file_route("/assets/page.svg", _FILES / "icon.svg", "image/svg+xml"),
        )

    async def closed(self) -> None:
        """Nothing is being asked any more."""
        asked: tuple[Question[Any], ...] = (
            self._lag,
            self._rejections,
            self._letters,
            self._orders,
            *self._of_one,
        )
        await asyncio.gather(*(question.closed() for question in asked))

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
            self._myself(),
            refresh,
        )
        return _page(rendering.overview_page(shown))

    def _myself(self) -> Myself:
        state = self._health.describe()
        samples = [(s.name, s.value) for metric in self._metrics.registry.collect() for s in metric.samples]
        return Myself(
            bool(state["ready"]),
            self._health.troubles(),
            tuple(self._health.partitions()),
            self._started_at,
            own_counts(samples),
        )

    async def _search(self, request: Request) -> Response:
        text = request.query_params.get("id", "").strip()
        order_id = _order_id(text)
        if order_id is None:
            return _no_order_id(text, rendering.TOP)
        return RedirectResponse(f"explain/{order_id}", 303, _HEADERS)

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
        place = parse_place(request.path_params["place"])
        if place is None:
            return _no_letter("A dead letter's place is written like 2:17.", 400)
        found = await self._ask("Kafka", lambda: self._sources.letter(place))
        if found.trouble:
            return _no_letter(found.trouble)
        if found.value is None:
            return _no_letter(f"No dead letter lies at {place}, or not any more.", 404)
        return _page(rendering.letter_page(found.value))

    async def _ask(
        self, server: str, ask: Callable[[], Awaitable[T]], limit_seconds: float | None = None
    ) -> Panel[T]:
        """One question of one viewer: few at a time, those too whose time is over and who still end."""
        self._of_one = {question for question in self._of_one if question.is_open}
        if len(self._of_one) >= MOST_ASKING:
            return _BUSY
        question = Question(server, ask, limit_seconds) if limit_seconds else Question(server, ask)
        self._of_one.add(question)
        return await question.answer()


def _no_letter(trouble: str, status: int = 200) -> Response:
    return _page(rendering.trouble_page(trouble, rendering.ONE_DOWN), status)


def _no_order_id(text: str, root: str) -> Response:
    trouble = "Write an order id: a UUID like 0b6f5c1e-5d0e-4c1e-9d0c-6a4a0c1d2e3f."
    return _page(rendering.trouble_page(trouble, root, searched=text), 400)


def _order_id(text: str) -> UUID | None:
    """In any form in which people copy a UUID."""
    try:
        return UUID(text)
    except ValueError:
        return None


def _page(html: str, status: int = 200) -> Response:
    return Response(html.encode(errors="replace"), status, _HEADERS, "text/html")
