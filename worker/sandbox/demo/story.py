"""What happens in the demo, in which order.

tell
 ├ open the shop     tables and topics; workers start while the catalogue is loaded
 ├ perform           place the orders · kill a worker · start it again · watch, until all is decided
 ├ examine           read everything back, check it, report
 └ keep              on demand: leave it all running until Ctrl-C
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from rich.console import Console

from worker.sandbox.demo import report
from worker.sandbox.demo.checks import DemoRun, Kill, checks
from worker.sandbox.demo.evidence import read_evidence
from worker.sandbox.demo.feed import PlacedRecord, Placement, RecordKind, place_paced, schedule
from worker.sandbox.demo.picture import Picture
from worker.sandbox.demo.program import program_here
from worker.sandbox.demo.retailer import Retailer
from worker.sandbox.demo.screen import BACK, KILLED, TAKEN_OVER, ScreenState, WorkerLine
from worker.sandbox.demo.shop import PARTITIONS, choices_for, fill_shop, opened_shop, settings_from, variables
from worker.sandbox.demo.watch import Subscriber, subscribed
from worker.sandbox.demo.workers import Crew, DemoWorker, crew_of, running
from worker.sandbox.servers.services import Services
from worker.settings import Settings

SEED: Final = 536365  # the first invoice
READY_SECONDS: Final = 45.0
DRAIN_SECONDS: Final = 45.0
_LOOK_SECONDS: Final = 0.4
_LAG_SECONDS: Final = 0.4
_TICK_SECONDS: Final = 0.125
_OF_ITS_WORKERS_ALONE: Final = frozenset(
    ["http_host", "http_port", "log_level", "log_format", "message_max_bytes", "session_timeout_ms"]
)


@dataclass(slots=True)
class Story:
    """One performance of the demo."""

    services: Services
    given: Settings
    retailer: Retailer
    folder: Path
    console: Console
    seconds: float
    keep: bool
    began: float  # monotonic, when the command was called
    finished: Callable[[bool], None]  # called once: whether every check held

    choices: dict[str, str] = field(init=False)
    settings: Settings = field(init=False)

    def __post_init__(self) -> None:
        self.choices = choices_for(self.services, self.given)
        self.settings = settings_from(self.choices)

    async def tell(self) -> None:
        """From empty servers to the report, and with `keep` on until it is cancelled."""
        is_given = self.services.kind == "given"
        async with opened_shop(self.settings, is_given=is_given):
            self._say(f"Tables and topics are there ({PARTITIONS} partitions each)")
            async with crew_of(2, variables(self.choices), self.folder) as crew:
                held = await self._with_workers(crew)
                self.finished(held)
                if not self.keep:
                    report.print_next(self.console, program=program_here())
                else:
                    self._print_kept(crew, is_given)
                    await asyncio.Event().wait()

    async def _with_workers(self, crew: Crew) -> bool:
        await fill_shop(self.settings, self.retailer, self.folder)
        retailer = self.retailer
        self._say(f"Catalogue imported: {len(retailer.products):,} products, {len(retailer.users):,} users")
        async with (
            subscribed(self.settings, PARTITIONS) as subscriber,
            running(crew.keep_looking(_LOOK_SECONDS)),
        ):
            await crew.until_ready(PARTITIONS, READY_SECONDS)
            shared = "; ".join(f"{w.name} has partitions {_list(w.vitals.partitions)}" for w in crew.workers)
            self._say(f"Workers are ready: {shared}")
            run = await Performance(self, crew, subscriber).perform()
        results = checks(run)
        report.print_report(self.console, run, results, seconds_in_all=time.monotonic() - self.began)
        held = all(check.held for check in results)
        if not held:
            for worker in crew.workers:
                self._say(f"the log of {worker.name} ends: {worker.last_words}")
        return held

    def _say(self, sentence: str) -> None:
        self.console.print(f" · {sentence}", highlight=False, markup=False)

    def _print_kept(self, crew: Crew, is_given: bool) -> None:
        report.print_kept(
            self.console,
            kafka=self.settings.kafka_bootstrap_servers,
            database="as given" if is_given else self.services.database_url,
            workers={worker.name: worker.url or "" for worker in crew.workers},
            exports=variables(self._differing()),
            is_given=is_given,
            program=program_here(),
        )

    def _differing(self) -> dict[str, str]:
        """Where another terminal would look elsewhere. Given URLs are never among them: it has those."""
        return {
            name: value
            for name, value in self.choices.items()
            if name not in _OF_ITS_WORKERS_ALONE and getattr(self.given, name) != getattr(self.settings, name)
        }


class Performance:
    """From the first order placed to the last outcome seen."""

    def __init__(self, story: Story, crew: Crew, subscriber: Subscriber) -> None:
        self._story, self._crew, self._subscriber = story, crew, subscriber
        self._schedule: Sequence[Placement] = schedule(
            story.retailer.invoices,
            started_at=datetime.now(UTC),
            seconds=story.seconds,
            partitions=PARTITIONS,
            seed=SEED,
        )
        self._placed: list[PlacedRecord] = []
        self._state = ScreenState(orders=len(story.retailer.invoices), records=len(self._schedule))
        self._picture = Picture(story.console, self._state)
        self._started = time.monotonic()
        self._kill: Kill | None = None

    async def perform(self) -> DemoRun:
        """Everything that happened, read back when all of it is over."""
        subscriber = self._subscriber
        self._now("Orders are placed; two workers share the partitions and decide them.")
        self._started = time.monotonic()
        self._happened("the first order is placed; some come twice, some messages are broken")
        with self._picture.shown():
            async with running(subscriber.read_on(), self._watch_lag(), self._draw()):
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(self._place())
                    tasks.create_task(self._kill_and_restart())
                self._now("All orders are placed; the last ones are being decided.")
                lag = await self._until_drained()
                seconds = time.monotonic() - self._started
                self._now("All orders are decided. Reading everything back to check it.")
                read_to_the_end = await self._until_read()
        evidence = await read_evidence(self._story.settings)
        assert self._kill is not None
        return DemoRun(
            retailer=self._story.retailer,
            placed=self._placed,
            due=len(self._schedule),
            tally=subscriber.tally,
            evidence=evidence,
            lag=lag,
            read_to_the_end=read_to_the_end,
            kill=replace(self._kill, redelivered=sum(w.vitals.redelivered for w in self._crew.workers)),
            alive={worker.name: worker.alive for worker in self._crew.workers},
            seconds=seconds,
        )

    async def _place(self) -> None:
        await place_paced(self._story.settings, self._schedule, self._acknowledged)
        self._happened(f"the last of {len(self._placed):,} records is placed")

    def _acknowledged(self, placed: PlacedRecord) -> None:
        self._placed.append(placed)
        self._state.placed[placed.placement.kind.value] += 1

    async def _kill_and_restart(self) -> None:
        await asyncio.sleep(self._story.seconds / 2)
        # The one with most partitions: the kill of an idle worker would show nothing.
        victim = max(self._crew.workers, key=lambda worker: (len(worker.vitals.partitions), worker.number))
        await self._kill_worker(victim)
        await self._restart(victim)

    async def _kill_worker(self, victim: DemoWorker) -> None:
        owned, timeout_ms = victim.vitals.partitions, self._story.settings.session_timeout_ms
        victim.kill()
        at, now_ms = self._elapsed(), time.time_ns() // 1_000_000
        self._kill = Kill(victim.name, owned, at, now_ms, timeout_ms)
        self._happened(f"{victim.name} killed with SIGKILL; it held partitions {_list(owned)}", KILLED)
        self._now(f"{victim.name.capitalize()} is killed. Kafka notices after {timeout_ms / 1000:g} s.")
        after = await self._until_decided_again(owned, now_ms, timeout_ms / 1000 + 15)
        self._kill = replace(self._kill, took_over_after=after)
        if after is not None:
            other = next(w for w in self._crew.workers if w is not victim)
            self._happened(f"{other.name} took over: outcomes again {after:.1f} s after the kill", TAKEN_OVER)

    async def _restart(self, victim: DemoWorker) -> None:
        # Not before: the group would not let the new one in until it has given up the dead one.
        self._now(f"{victim.name.capitalize()} is started again, as a supervisor would do.")
        began = time.monotonic()
        victim.start()
        if not await victim.until_sharing(READY_SECONDS):
            return
        after = time.monotonic() - began
        assert self._kill is not None
        self._kill = replace(self._kill, back_after=after)
        partitions = _list(victim.vitals.partitions)
        self._happened(
            f"{victim.name} is back with partitions {partitions}, {after:.1f} s after its start", BACK
        )
        self._now("Both workers share the partitions again.")

    async def _until_decided_again(
        self, partitions: Sequence[int], since_ms: int, limit_seconds: float
    ) -> float | None:
        """Seconds until the first order placed there after the kill was visible; None: not in time."""
        deadline = time.monotonic() + limit_seconds
        # The repeat of an order may lie in a partition of the other worker, who decides it there.
        elsewhere = {p.key for p in self._schedule if p.kind is RecordKind.DUPLICATE}
        while time.monotonic() < deadline:
            keys = [
                p.placement.key.decode()
                for p in self._placed
                if p.placement.kind is RecordKind.ORDER
                and p.placement.key not in elsewhere
                and p.partition in partitions
                and p.placed_ms > since_ms
            ]
            outcomes = self._subscriber.tally.outcomes
            seen = [outcomes[key][0].seen_ms for key in keys if key in outcomes]
            if seen:
                return (min(seen) - since_ms) / 1000
            await asyncio.sleep(0.05)
        return None

    async def _until_drained(self) -> int | None:
        """The lag when all is decided and seen, or at the deadline. Asked for again: the one shown is old."""
        deadline = time.monotonic() + DRAIN_SECONDS
        while True:
            lag = await self._subscriber.lag()
            seen_all = self._subscriber.tally.outcomes_seen >= self._state.orders
            if (lag == 0 and seen_all) or time.monotonic() > deadline:
                return lag
            await asyncio.sleep(0.05)

    async def _until_read(self) -> bool:
        # A moment for what must not come: a second publication would follow the first.
        await asyncio.sleep(0.5)
        deadline = time.monotonic() + 5
        while not await self._subscriber.has_read_everything():
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(0.05)
        return True

    async def _watch_lag(self) -> None:
        while True:
            self._state.lag = await self._subscriber.lag()
            await asyncio.sleep(_LAG_SECONDS)

    async def _draw(self) -> None:
        while True:
            self._refresh()
            self._picture.draw()
            await asyncio.sleep(_TICK_SECONDS)

    def _refresh(self) -> None:
        state, tally = self._state, self._subscriber.tally
        state.counts, state.reasons, state.codes = tally.counts, tally.reasons, tally.codes
        state.workers = [_line(worker) for worker in self._crew.workers]
        state.tick(self._elapsed(), len(self._placed), tally.outcomes_seen)

    def _elapsed(self) -> float:
        return time.monotonic() - self._started

    def _now(self, sentence: str) -> None:
        self._state.now = sentence

    def _happened(self, text: str, mark: str = "") -> None:
        self._state.seconds = self._elapsed()
        self._state.happened(text, mark)


def _line(worker: DemoWorker) -> WorkerLine:
    status = "killed" if worker.was_killed else "live" if worker.vitals.ready else "starting"
    if not worker.was_killed and not worker.alive:
        status = "ended"
    return WorkerLine(worker.name, worker.pid, status, worker.vitals.partitions, worker.vitals.decided)


def _list(partitions: Sequence[int]) -> str:
    return " and ".join(map(str, partitions)) if len(partitions) < 3 else ", ".join(map(str, partitions))
