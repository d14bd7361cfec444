"""The paths of the page. All of them only read; what servers are asked is in `sources`."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import parse_qs
from uuid import UUID

from faststream.asgi import AsgiResponse
from faststream.asgi.types import Scope

from worker.http.page import rendering
from worker.http.page.overview import Myself, Overview, outcomes, own_counts
from worker.http.page.question import Panel, Question
from worker.http.page.sources import Sources
from worker.http.server import Answer
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

    def paths(self) -> Sequence[tuple[str, Answer]]:
        """What `http.Application` serves."""
        return (
            ("/", self._overview),
            ("/orders", self._search),
            ("/explain/{order_id}", self._explain),
            ("/dead-letters/{place}", self._letter),
            ("/assets/page.css", _file("style.css", "text/css")),
            ("/assets/page.svg", _file("icon.svg", "image/svg+xml")),
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

    async def _overview(self, scope: Scope, _parameters: Mapping[str, str]) -> AsgiResponse:
        lag, rejected, letters, orders = await asyncio.gather(
            self._lag.answer(), self._rejections.answer(), self._letters.answer(), self._orders.answer()
        )
        now = datetime.now(UTC)
        refresh = REFRESH_SECONDS if "refresh" in _query(scope) else 0
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

    async def _search(self, scope: Scope, _parameters: Mapping[str, str]) -> AsgiResponse:
        text = _query(scope).get("id", [""])[0].strip()
        order_id = _order_id(text)
        if order_id is None:
            return _no_order_id(text)
        return AsgiResponse(b"", 303, headers={**_HEADERS, "location": f"/explain/{order_id}"})

    async def _explain(self, _scope: Scope, parameters: Mapping[str, str]) -> AsgiResponse:
        order_id = _order_id(parameters["order_id"])
        if order_id is None:
            return _no_order_id(parameters["order_id"])
        whole = await self._ask("Kafka or the database", lambda: self._sources.order(order_id), ORDER_SECONDS)
        if whole.value:
            return _page(rendering.order_page(order_id, whole.value))
        rows = await self._ask("the database", lambda: self._sources.rows_of(order_id))
        return _page(rendering.order_page(order_id, rows.value, rows.trouble, whole.trouble))

    async def _letter(self, _scope: Scope, parameters: Mapping[str, str]) -> AsgiResponse:
        place = parse_place(parameters["place"])
        if place is None:
            return _page(rendering.trouble_page("A dead letter's place is written like 2:17."), 400)
        found = await self._ask("Kafka", lambda: self._sources.letter(place))
        if found.trouble:
            return _page(rendering.trouble_page(found.trouble))
        if found.value is None:
            return _page(rendering.trouble_page(f"No dead letter lies at {place}, or not any more."), 404)
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


def _no_order_id(text: str) -> AsgiResponse:
    trouble = "Write an order id: a UUID like 0b6f5c1e-5d0e-4c1e-9d0c-6a4a0c1d2e3f."
    return _page(rendering.trouble_page(trouble, searched=text), 400)


def _order_id(text: str) -> UUID | None:
    """In any form in which people copy a UUID."""
    try:
        return UUID(text)
    except ValueError:
        return None


def _query(scope: Scope) -> dict[str, list[str]]:
    text = bytes(scope.get("query_string", b"")).decode("latin-1")
    try:
        return parse_qs(text, keep_blank_values=True, errors="replace", max_num_fields=10)
    except ValueError:
        return {}


def _page(html: str, status: int = 200) -> AsgiResponse:
    return AsgiResponse(
        html.encode(errors="replace"),
        status,
        headers={**_HEADERS, "content-type": "text/html; charset=utf-8"},
    )


def _file(name: str, media_type: str) -> Answer:
    async def answer(_scope: Scope, _parameters: Mapping[str, str]) -> AsgiResponse:
        headers = {"content-type": f"{media_type}; charset=utf-8", "x-content-type-options": "nosniff"}
        return AsgiResponse(
            (_FILES / name).read_bytes(), 200, headers={**headers, "cache-control": "no-cache"}
        )

    return answer
