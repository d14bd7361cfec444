"""A worker at work: the checks before it starts, its HTTP server, its signals and its exit code."""

import asyncio
import gc
import logging
import os
import signal
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Final

import uvicorn

from worker import database, interruption
from worker.app import build
from worker.core.clocks import CLOCKS_APART_SECONDS
from worker.core.steps import Reached
from worker.errors import CommandError, LoginRefusedError, RefusedCredentialsError
from worker.failures import DATABASE_ERRORS
from worker.http.connections import bounded
from worker.kafka import clients
from worker.kafka.descriptors import raise_limit
from worker.kafka.rights import require_kafka_rights
from worker.lifespan import Worker
from worker.observability.events import Event, about
from worker.rights import require_rights
from worker.settings import Settings

logger = logging.getLogger(__name__)

EXIT_AT_ONCE: Final = 130


async def serve(settings: Settings, reached: Reached) -> int:
    """Check that everything is there, then work until asked to stop. As `worker.runtime.process.run`."""
    raise_limit()
    worker, app = build(settings, reached)
    _tune_garbage_collector()
    try:
        await database.require_database(worker.engine, settings)
        lacking = (await require_rights(worker.engine, settings), await require_kafka_rights(settings))
        await clients.require_topics(settings)
        await _remark(worker, settings, lacking)
        listening = _listen(settings)
    except CommandError as error:
        await worker.engine.dispose()
        if isinstance(error, RefusedCredentialsError):
            raise LoginRefusedError(str(error)) from None
        raise
    server = _Server(uvicorn.Config(app, log_config=None, lifespan="on", **bounded()))
    _stop_on_signals(server, worker)
    host, port = listening.getsockname()[:2]
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    logger.info("health, metrics and docs on %s", url, extra=about(Event.WORKER_LISTENS, url=url))
    with suppress(SystemExit):  # what uvicorn raises where the application does not start: the code is ours
        await server.serve(sockets=[listening])
    if not server.started or server.lifespan.error_occurred:
        return 1
    logger.info("stopped", extra=about(Event.WORKER_STOPPED, exit_code=0))
    return 0


async def _remark(worker: Worker, settings: Settings, lacking: Sequence[str | None]) -> None:
    """Warn of settings that will do harm."""
    remarks = filter(None, (database.url_remark(settings), *lacking))
    for remark in (*remarks, *await clients.topic_remarks(settings)):
        logger.warning("%s", remark, extra=about(Event.WORKER_REMARKS))
    ahead = 0.0
    with suppress(*DATABASE_ERRORS, OSError):  # the first batch will tell
        ahead = await database.seconds_ahead_of_database(worker.engine)
    if abs(ahead) > CLOCKS_APART_SECONDS:
        logger.warning(
            "this worker's clock is %.0f s %s PostgreSQL's: set the clocks of both machines right",
            *(abs(ahead), "ahead of" if ahead > 0 else "behind"),
            extra=about(Event.CLOCK_DIFFERS, server="database", seconds=ahead),
        )


def _listen(settings: Settings) -> socket.socket:
    address = (settings.http_host, settings.http_port)
    try:
        return socket.create_server(
            address, family=socket.AF_INET6 if ":" in settings.http_host else socket.AF_INET
        )
    except OSError as error:
        # Python names the address once more.
        why = (error.strerror or str(error)).partition(" (while")[0].lower()
        raise CommandError(
            f"cannot listen on {settings.http_host}:{settings.http_port} ({why}):"
            " set ORDER_WORKER_HTTP_PORT (0: any free port) or ORDER_WORKER_HTTP_HOST"
        ) from None


class _Server(uvicorn.Server):
    """uvicorn without signal handlers, and which ends if its application fails."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        # The signals are ours: its own handling would raise them again after the shutdown.
        yield

    async def on_tick(self, counter: int) -> bool:
        # The application can fail after uvicorn took it for started. It would serve on, without a consumer.
        return await super().on_tick(counter) or self.lifespan.error_occurred


def _tune_garbage_collector() -> None:
    """Let the cycle collector look at a batch's objects once, not over and over while it is built.

    A batch makes some 50,000 objects, and no cycles (`test_batch.py`). With Python's threshold of 700 the
    collector took a fifth to a quarter of the time: 3,100 to 3,800 orders a second became 4,300 to 4,600, and
    peak memory stayed at 128 MB.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(200_000, 50, 1_000)


def _stop_on_signals(server: uvicorn.Server, worker: Worker) -> None:
    loop = asyncio.get_running_loop()

    def stop(number: int) -> None:
        if server.should_exit and number == signal.SIGHUP:
            return  # of one closed terminal the kernel and the shell may send one each
        if server.should_exit:
            logger.warning(
                "stopped twice: leaving at once", extra=about(Event.WORKER_STOPPED, exit_code=EXIT_AT_ONCE)
            )
            os._exit(EXIT_AT_ONCE)
        logger.info("stopping: finishing the batch in flight", extra=about(Event.WORKER_STOPS))
        worker.health.stopping()
        worker.consumer.take_no_more()
        server.should_exit = True
        loop.call_later(worker.settings.shutdown_timeout_seconds, _leave_late)

    for number in interruption.ask_to_stop():
        loop.add_signal_handler(number, stop, number)


def _leave_late() -> None:
    extra = about(Event.WORKER_FAILS, exit_code=1)
    logger.error("the batch in flight did not end in time: leaving at once; it is read again", extra=extra)
    os._exit(1)
