"""The worker processes of the demo: started as by `order-worker run`, watched over HTTP as by an operator."""

import asyncio
import http.client
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from prometheus_client.parser import text_string_to_metric_families

from worker.errors import CommandError
from worker.sandbox.servers.processes import Child, last_lines

STOP_SECONDS: Final = 10.0
_HTTP_SECONDS: Final = 2.0
_LISTENING = re.compile(r"health, metrics and docs on (http://\S+)")


@dataclass(frozen=True, slots=True)
class Vitals:
    """What a worker reports of itself. Its counters begin at 0 with each start."""

    ready: bool = False
    partitions: tuple[int, ...] = ()
    decided: int = 0
    redelivered: int = 0


class DemoWorker:
    """One place in the crew. Killed and started again it is another process, with a log of its own."""

    def __init__(self, number: int, environment: Mapping[str, str], folder: Path) -> None:
        self.number = number
        self.vitals = Vitals()
        self.was_killed = False
        self._environment, self._folder = dict(environment), folder
        self._lives: list[Child] = []
        self._url: str | None = None

    @property
    def name(self) -> str:
        return f"worker {self.number}"

    @property
    def pid(self) -> int | None:
        return self._lives[-1].pid

    @property
    def alive(self) -> bool:
        return self._lives[-1].alive

    @property
    def url(self) -> str | None:
        """Where it serves health, metrics and docs, once it says so in its log."""
        if self._url is None and (found := _LISTENING.search(_text(self._log_path))):
            self._url = found[1]
        return self._url

    @property
    def last_words(self) -> str:
        return last_lines(self._log_path)

    def start(self) -> None:
        """Start a process; it dies with the demo, but a Ctrl-C in the terminal does not reach it."""
        child = Child(self.name, self._folder / f"worker-{self.number}-{len(self._lives) + 1}.log")
        # The demo's own folder: there a `.env` and the package are found as the demo found them.
        child.spawn([sys.executable, "-m", "worker", "run"], folder=Path.cwd(), environment=self._environment)
        self._lives.append(child)
        self._url, self.vitals, self.was_killed = None, Vitals(), False

    def kill(self) -> None:
        """SIGKILL: no chance to finish, to commit or to say good-bye."""
        self._lives[-1].kill()
        self.was_killed = True
        self.vitals = Vitals(decided=self.vitals.decided, redelivered=self.vitals.redelivered)

    async def stop(self) -> None:
        if self._lives:
            await asyncio.to_thread(self._lives[-1].stop, signal.SIGTERM, STOP_SECONDS)

    async def until_sharing(self, deadline_seconds: float) -> bool:
        """Whether it has partitions, and so works, before the deadline."""
        with suppress(TimeoutError):
            async with asyncio.timeout(deadline_seconds):
                while not self.vitals.partitions:  # noqa: ASYNC110 (the answer comes over HTTP, from look())
                    await asyncio.sleep(0.05)
        return bool(self.vitals.partitions)

    async def look(self) -> None:
        """Ask it how it is; no answer is an answer too."""
        life, url = self._lives[-1], self.url
        vitals = await asyncio.to_thread(_ask, url) if url else None
        # Killed or replaced while we asked: the answer is that of a process that is gone.
        if vitals and life is self._lives[-1] and life.alive:
            self.vitals = vitals

    @property
    def _log_path(self) -> Path:
        return self._lives[-1].log_path


class Crew:
    """All workers of the demo."""

    def __init__(self, workers: list[DemoWorker]) -> None:
        self.workers = workers

    async def keep_looking(self, interval_seconds: float) -> None:
        while True:
            await asyncio.gather(*(worker.look() for worker in self.workers))
            await asyncio.sleep(interval_seconds)

    async def until_ready(self, partitions: int, deadline_seconds: float) -> None:
        """Return when the workers share all partitions; a worker that ends or is late is an error."""
        try:
            async with asyncio.timeout(deadline_seconds):
                while not self._share(partitions):
                    self._require_alive()
                    await asyncio.sleep(0.05)
        except TimeoutError:
            words = "; ".join(f"{w.name}: {w.last_words}" for w in self.workers)
            raise CommandError(f"the workers were not ready in {deadline_seconds:g} s: {words}") from None

    def _share(self, partitions: int) -> bool:
        owned = sorted(p for w in self.workers if w.vitals.ready for p in w.vitals.partitions)
        return owned == list(range(partitions)) and all(w.vitals.partitions for w in self.workers)

    def _require_alive(self) -> None:
        for worker in self.workers:
            if not worker.alive:
                raise CommandError(f"{worker.name} ended by itself: {worker.last_words}")


@asynccontextmanager
async def crew_of(size: int, variables: Mapping[str, str], folder: Path) -> AsyncIterator[Crew]:
    """Running workers, none of which is left afterwards."""
    # What is given here is given by no file.
    files = {f"{name}_FILE": "" for name in variables if f"{name}_FILE" in os.environ}
    environment = {**os.environ, **files, **variables}
    crew = Crew([DemoWorker(number, environment, folder) for number in range(1, size + 1)])
    try:
        for worker in crew.workers:
            worker.start()
        yield crew
    finally:
        await asyncio.gather(*(worker.stop() for worker in crew.workers))


def _ask(url: str) -> Vitals | None:
    try:
        state = json.loads(_get(url, "/readyz"))
        metrics = _values(_get(url, "/metrics"))
    except (OSError, http.client.HTTPException, ValueError):
        return None
    return Vitals(
        ready=state["ready"],
        partitions=tuple(state["partitions"]),
        decided=metrics["order_worker_orders_confirmed_total"]
        + metrics["order_worker_orders_rejected_total"],
        redelivered=metrics["order_worker_orders_redelivered_total"],
    )


def _get(url: str, path: str) -> str:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=_HTTP_SECONDS)
    try:
        connection.request("GET", path)
        return connection.getresponse().read().decode()
    finally:
        connection.close()


def _values(metrics: str) -> dict[str, int]:
    families = text_string_to_metric_families(metrics)
    return {s.name: int(s.value) for family in families for s in family.samples if not s.labels}


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


@asynccontextmanager
async def running(*works: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """The works run beside the block and are cancelled at its end; one that fails ends the block."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(work) for work in works]
        yield
        for task in tasks:
            task.cancel()
