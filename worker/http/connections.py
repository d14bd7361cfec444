"""Bounds HTTP connections in number and time, so that they cannot take files or time from the orders."""

import asyncio
from typing import Any, Final

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

# More than may be answered at once (`queries.MAX_ASKING`; a test has three times as many), and far fewer than
# the files that a process may open. Probes, a scraper and some people take a few; a browser opens six.
MOST_CONNECTIONS: Final = 400
BACKLOG: Final = 128  # connections that the kernel keeps until we accept them
HEAD_SECONDS: Final = 5.0  # uvicorn's own limit for an idle connection that had a request
ANSWER_SECONDS: Final = 60.0


class BoundedConnection(H11Protocol):
    """A uvicorn connection with limits on the number of connections and on the time of each.

    A connection is closed if it has not sent the head of a request within `HEAD_SECONDS`, or has not read the
    answer within `ANSWER_SECONDS`. If there are too many, the one that has waited longest for its client is
    closed, so that a probe, which sends its request and reads its answer at once, is always answered.
    """

    _deadline: asyncio.TimerHandle | None = None
    _waiting_since: float = float("-inf")  # by the loop's clock

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._end_within(HEAD_SECONDS)
        if len(self.connections) > MOST_CONNECTIONS:
            ours = (one for one in self.connections if isinstance(one, BoundedConnection))
            waiting = (one for one in ours if one._waits_for_client())  # this one at least
            longest = min(waiting, key=lambda one: one._waiting_since)
            self.connections.discard(longest)  # it is lost a moment later only, and others come meanwhile
            longest.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_within(None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        was_answering = self._is_answering()
        super().data_received(data)
        if self._is_answering():
            if not was_answering:
                self._end_within(ANSWER_SECONDS)
        elif self._deadline is None:
            # A piece of the next head: uvicorn waits for the rest without end.
            self._end_within(HEAD_SECONDS)

    def send_400_response(self, msg: str) -> None:
        """As uvicorn's; what answers the request meanwhile has nobody to answer to."""
        if self.cycle is not None:
            self.cycle.disconnected = True
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            super().send_400_response(msg)
        else:
            self.transport.abort()  # the answer has begun, or is over

    def on_response_complete(self) -> None:
        self._end_within(None)
        super().on_response_complete()  # which may begin with a request that is here already
        if self._is_answering():
            self._end_within(ANSWER_SECONDS)

    def _waits_for_client(self) -> bool:
        """To send a request, or to read what has been written."""
        return not self._is_answering() or self.flow.write_paused

    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _end_within(self, seconds: float | None) -> None:
        self._waiting_since = self.loop.time()
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = None if seconds is None else self.loop.call_later(seconds, self.transport.abort)


def bounded() -> dict[str, Any]:
    """The uvicorn options that bound its connections."""
    return {"http": BoundedConnection, "ws": "none", "backlog": BACKLOG}
