"""A running worker: what it consists of, its own tasks, and the order in which it is taken down."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Final

from sqlalchemy.ext.asyncio import AsyncEngine

from worker.database import ask_database
from worker.http.outcomes import OutcomeEndpoint
from worker.http.page.open_letters import OpenLetters
from worker.http.page.site import Site
from worker.http.queries import Inquiries
from worker.kafka.limits.output_limits import OutputLimits
from worker.kafka.producing.lease import Leases
from worker.observability.health import Health, monitor, start_watchdog
from worker.observability.metrics import Metrics
from worker.pipeline.consumer import OrderConsumer
from worker.pipeline.maintenance import Maintenance
from worker.pipeline.watch import Watch
from worker.pipeline.withheld import WithheldOutcomes
from worker.settings import Settings

# A part of the time that a supervisor gives a worker to stop.
RELEASED_WITHIN_SECONDS: Final = 3.0


@dataclass(slots=True)
class Worker:
    """The objects of a running worker."""

    settings: Settings
    engine: AsyncEngine
    inquiries: Inquiries
    site: Site
    outcomes: OutcomeEndpoint
    health: Health
    metrics: Metrics
    limits: OutputLimits
    leases: Leases
    consumer: OrderConsumer
    watch: Watch
    maintenance: Maintenance
    withheld: WithheldOutcomes
    open_letters: OpenLetters

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Starts and stops the worker's own tasks around FastStream's start and stop."""
        await self.limits.read()
        start_watchdog(self.health, self.settings.stall_limit_seconds, self.settings.refused_limit_seconds)
        try:
            # A task that ends by itself ends the worker with exit code 1, so that it is started again.
            async with asyncio.TaskGroup() as background:
                tasks = [
                    background.create_task(task)
                    for task in (
                        monitor(self.health, {"kafka": self.watch.look, "database": self._ping}),
                        self.maintenance.run(),
                        self.withheld.run(),
                        self.open_letters.run(),
                    )
                ]
                self.health.joining()
                yield
                for task in tasks:
                    task.cancel()
        finally:
            # FastStream has stopped the consumer by now: the batch in flight is decided, the group is left.
            await self.watch.close()
            await self.site.close()
            await self.outcomes.close()
            await self.consumer.close()
            await self.limits.close()
            await self.leases.producers.close()
            await self.engine.dispose()
            await self.inquiries.engine.dispose()
            self.metrics.tracing.close()

    async def leaving(self) -> None:
        """Commit offsets and release leases before leaving the group, so that the next owners find them."""
        await self.maintenance.look_back()
        with suppress(TimeoutError):  # a batch may wait for a server: then the next owners find out
            async with asyncio.timeout(RELEASED_WITHIN_SECONDS):
                await self.consumer.close()

    async def _ping(self) -> None:
        self.metrics.clock_offset.set(await ask_database(self.engine, self.settings))
