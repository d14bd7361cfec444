"""`/outcomes/{order_id}`: the event of a decided order, and the dead letters of an undecided one.

With `?wait=PT10S` the answer comes as soon as the order is decided. One query serves all waiting requests.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from contracts.envelope import outcome_headers
from contracts.fields import parse_order_id, time_text
from db.bulk.rows import LedgerRow
from db.worker import ledger
from worker.errors import UsageError
from worker.http.page.cached_query import CachedQuery
from worker.http.page.tail import Tail
from worker.http.queries import Inquiries, NoAnswerError
from worker.http.server import json_response
from worker.kafka.offsets import parse_duration
from worker.observability.events import Event, about
from worker.observability.health import Health
from worker.operations.dead_letters.letter import Letter, order_id_of, read_letter

log = logging.getLogger(__name__)

# Below the time that a worker has to stop (`faststream run` does not announce that it stops).
MAX_WAIT_SECONDS: Final = 20
# Far below `connections.MOST_CONNECTIONS`, so that probes are answered while this many requests wait.
MAX_WAITING: Final = 200
LOOK_SECONDS: Final = 0.1
_FORM: Final = f"wait is a duration of at most {MAX_WAIT_SECONDS} seconds, given once, like wait=PT10S"


@dataclass(frozen=True, slots=True)
class LettersOfOrders:
    """The newest dead letters, by order id. `older`: there are more."""

    by_order: Mapping[UUID, Sequence[Letter]]
    older: bool


def letters_of_orders(tail: Tail) -> LettersOfOrders:
    """The newest first."""
    by_order: dict[UUID, list[Letter]] = {}
    for record in tail.records:
        if (order_id := order_id_of(record.key, record.value)) is not None:
            by_order.setdefault(order_id, []).append(read_letter(record))
    return LettersOfOrders(by_order, bool(tail.cut))


class OutcomeEndpoint:
    """Answers for one worker, without delaying a batch. Sends no query before the first request."""

    def __init__(
        self, inquiries: Inquiries, letters: Callable[[], Awaitable[LettersOfOrders]], health: Health
    ) -> None:
        self._inquiries = inquiries
        self._letters = CachedQuery("Kafka", letters)
        self._health = health
        self._waiting: dict[UUID, list[asyncio.Future[LedgerRow | None]]] = {}
        self._looking: asyncio.Task[None] | None = None
        self._trouble = ""  # of the last look

    def routes(self) -> Sequence[Route]:
        """The routes for `server.Application`."""
        return (Route("/outcomes/{order_id}", self._outcome),)

    async def close(self) -> None:
        """End all waiting requests and running queries."""
        self._answer_all(None)
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait({self._looking})
        await self._letters.close()

    async def _outcome(self, request: Request) -> Response:
        text = request.path_params["order_id"]
        order_id = parse_order_id(text)
        if order_id is None:
            error = "not an order id: write a UUID of 36 characters"
            return json_response(400, {"order_id": text, "error": error})
        try:
            seconds = _seconds(request.query_params.getlist("wait"))
        except UsageError:
            return json_response(400, {"order_id": text, "error": _FORM})
        try:
            row = (await self._find([order_id])).get(order_id)
            if row is None and seconds:
                row = await self._within(seconds, order_id, request)
        except NoAnswerError as error:
            return json_response(503, {"order_id": text, "error": str(error)}, {"retry-after": "1"})
        if row is not None:
            return _event(row)
        undecided: dict[str, Any] = {"order_id": text, "error": "undecided"}
        return json_response(404, undecided | ({} if seconds is None else await self._why(order_id)))

    async def _find(self, order_ids: Collection[UUID]) -> dict[UUID, LedgerRow]:
        async with self._inquiries.session() as session:
            return await ledger.find_outcomes(session, order_ids)

    async def _within(self, seconds: float, order_id: UUID, request: Request) -> LedgerRow | None:
        """The outcome, as soon as it is there; None: the order was not decided in that time, or nobody waits.

        Raises NoAnswerError if too many requests wait already, or the last query got no answer.
        """
        if sum(map(len, self._waiting.values())) >= MAX_WAITING:
            raise NoAnswerError("too many are waiting")
        answer: asyncio.Future[LedgerRow | None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(order_id, []).append(answer)
        leaving = asyncio.create_task(_until_gone(request))
        leaving.add_done_callback(lambda _: _answer([answer], None))
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look())
        row = None
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    row = await answer
        finally:
            leaving.cancel()
            self._forget(order_id, answer)
        if row is None and self._trouble:
            raise NoAnswerError(self._trouble)  # it may well be decided
        return row

    def _forget(self, order_id: UUID, answer: "asyncio.Future[LedgerRow | None]") -> None:
        answers = self._waiting.get(order_id, [])
        if answer in answers:
            answers.remove(answer)
        if not answers:
            self._waiting.pop(order_id, None)

    async def _look(self) -> None:
        """Query all orders that requests wait for, until none waits."""
        while self._waiting:
            await asyncio.sleep(LOOK_SECONDS)
            if self._health.is_stopping:
                self._answer_all(None)
                return
            self._trouble = ""
            try:
                found = await self._find(list(self._waiting))
            except NoAnswerError as error:
                self._trouble = str(error)
                continue
            except Exception:
                log.exception("looking for outcomes failed", extra=about(Event.LOOK_FAILED))
                self._trouble = "looking for it failed: the worker's log says why"
                self._answer_all(None)
                return
            for order_id, row in found.items():
                _answer(self._waiting.pop(order_id, ()), row)

    def _answer_all(self, row: LedgerRow | None) -> None:
        waiting, self._waiting = self._waiting, {}
        for answers in waiting.values():
            _answer(answers, row)

    async def _why(self, order_id: UUID) -> dict[str, Any]:
        """The order's dead letters among the newest ones, or why they are not known."""
        known = await self._letters.answer()
        if known.value is None:
            return {"dead_letters": None, "trouble": known.trouble}
        letters = known.value.by_order.get(order_id, ())
        return {"dead_letters": [_letter(one) for one in letters], "older_dead_letters": known.value.older}


async def _until_gone(request: Request) -> None:
    """Until the client has closed its connection: it takes no place of those who wait then."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _answer(answers: Collection["asyncio.Future[LedgerRow | None]"], row: LedgerRow | None) -> None:
    for answer in answers:
        if not answer.done():
            answer.set_result(row)


def _seconds(given: Sequence[str]) -> float | None:
    """How long to wait; None: no wait requested. Raises UsageError."""
    if not given:
        return None
    seconds = parse_duration(given[0], "wait").total_seconds()
    if len(given) > 1 or seconds > MAX_WAIT_SECONDS:
        raise UsageError(_FORM)
    return seconds


def _letter(letter: Letter) -> dict[str, Any]:
    return {
        "place": str(letter.place),
        "source": list(letter.source) if letter.source else None,
        "code": letter.code,
        "path": letter.path,
        "message": letter.message,
        "failed_at": time_text(letter.failed_at) if letter.failed_at else None,
    }


def _event(row: LedgerRow) -> Response:
    """The stored event, with its Kafka headers in the CloudEvents form for HTTP."""
    if row.event is None:
        pruned = {"order_id": str(row.order_id), "error": "pruned", "outcome": row.outcome}
        return json_response(410, pruned)
    sent = outcome_headers(str(row.order_id).encode(), f"order-{row.outcome}", row.decided_at)
    headers = {name.replace("_", "-"): value.decode() for name, value in sent}
    return Response(row.event.encode(), headers={**headers, "etag": f'"{headers["ce-id"]}"'})
