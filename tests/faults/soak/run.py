"""A soak under way: two workers under steady load, a fault now and then, and what must hold after each."""

import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

from tests.faults.arena import Arena
from tests.faults.campaign import RECOVERY_SECONDS
from tests.faults.soak.faults import FAULTS
from tests.faults.soak.feed import Feeder
from tests.faults.soak.watch import MB, Sample, Watch, resident_bytes
from tests.support.deadline import eventually
from tests.support.worker_process import WorkerProcess

LEAD: Final = 30_000  # orders that wait while the peak is measured
WARM: Final = 20_000  # orders before that
PEAK_SECONDS: Final = 15.0
DRAIN_SECONDS: Final = 300.0


@dataclass
class Soak:
    """One soak under way."""

    there: Arena
    feeder: Feeder
    watch: Watch
    ended: threading.Event
    began: float = field(default_factory=time.monotonic)
    violations: list[str] = field(default_factory=list)
    struck: list[str] = field(default_factory=list)
    spared: WorkerProcess = field(init=False)
    _marks: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.there.keep()
        self.spared = self.there.crew[0]

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began

    def peak(self) -> float:
        """Orders a second that are decided when there are always more, with all of them fed and drained."""

        def more() -> int:
            self.feeder.place(self.watch.published + LEAD - self.feeder.placed)
            return self.watch.published

        eventually(lambda: more() >= WARM, DRAIN_SECONDS)
        began, first = time.monotonic(), self.watch.published
        eventually(lambda: more() and time.monotonic() - began >= PEAK_SECONDS, DRAIN_SECONDS)
        peak = (self.watch.published - first) / (time.monotonic() - began)
        eventually(lambda: self.there.scene.lag() == 0, DRAIN_SECONDS)
        return peak

    def start(self, rate: float) -> None:
        """Start the clock, and publish orders at this rate."""
        self.began = time.monotonic()
        self.feeder.start(rate)

    def line(self) -> str:
        """The progress so far."""
        lag = "?" if self.watch.lag is None else f"{self.watch.lag:,}"
        memory = resident_bytes(self.spared.process.pid) / MB
        return (
            f"placed {self.feeder.placed:,}, decided {self.watch.published:,}, lag {lag},"
            f" {len(self.struck)} faults ({self.struck[-1] if self.struck else 'none'}),"
            f" spared {memory:.0f} MB, {len(self.violations)} violations"
        )

    def strike_until(self, seconds: float, every: float, chance: Random, report: Callable[[], Any]) -> None:
        """One fault after the other, each once before any comes again, until the time is over."""
        deck: list[str] = []
        due = self.began + every
        while self._wait(lambda: time.monotonic() >= due, seconds, report):  # noqa: B023
            if not deck:
                deck = chance.sample(list(FAULTS), len(FAULTS))
            self._strike(deck.pop(), report)
            due = max(due + every, time.monotonic() + 1)

    def drain(self, report: Callable[[], Any]) -> None:
        """Wait until nothing waits any more, and dismiss the workers."""
        deadline = time.monotonic() + DRAIN_SECONDS
        while self.there.scene.lag() != 0:
            self._tick(report)
            if time.monotonic() > deadline:
                self.violations.append(f"not drained within {DRAIN_SECONDS:g} s: lag {self.watch.lag}")
                break
        codes = self.there.dismiss()
        if any(codes):
            self.violations.append(f"workers ended with {codes} when they were dismissed")

    def sample(self, before: Sample | None) -> Sample:
        """The figures of this moment, and the faults since the sample before."""
        decided, seconds = self.watch.published, self.seconds
        marks, self._marks = self._marks, []
        others = [resident_bytes(w.process.pid) for w in list(self.there.crew) if w is not self.spared]
        return Sample(
            round(seconds, 1),
            self.feeder.placed,
            decided,
            -1 if self.watch.lag is None else self.watch.lag,
            round((decided - before.decided) / (seconds - before.seconds), 1) if before else 0.0,
            resident_bytes(self.spared.process.pid),
            ",".join(str(rss) for rss in others if rss),
            ",".join(marks),
        )

    def _strike(self, name: str, report: Callable[[], Any]) -> None:
        at = self.seconds
        self.struck.append(name)
        self._marks.append(name)
        try:
            FAULTS[name](self.there, self.spared)
        except Exception as error:
            self.violations.append(f"{name} at {at:.0f} s could not be carried out: {error!r}"[:600])
        # Batches that were in flight before the fault do not count.
        self._wait(lambda: False, self.seconds + 1, report)
        before = self.watch.published
        if (
            self._wait(lambda: self.watch.published > before, self.seconds + RECOVERY_SECONDS, report)
            is False
        ):
            self.violations.append(
                f"nothing was decided within {RECOVERY_SECONDS:g} s after {name} at {at:.0f} s"
            )

    def _wait(self, condition: Callable[[], bool], seconds: float, report: Callable[[], Any]) -> bool | None:
        """Whether the condition became true before that second; None if the soak was interrupted."""
        while not condition():
            if self.ended.is_set() or self.feeder.failures:
                return None
            if self.seconds >= seconds:
                return False
            self._tick(report)
        return True

    def _tick(self, report: Callable[[], Any]) -> None:
        for worker in self.there.crew:
            if worker.process.poll() not in {None, 0, -signal.SIGKILL, -signal.SIGTERM}:
                self.violations.append(f"{worker.log_path.name} ended with {worker.process.returncode}")
        spared_gone = self.spared.process.poll() is not None
        self.there.keep()
        if spared_gone:
            self.violations.append(f"the spared worker ended with {self.spared.process.returncode}")
            self.spared = self.there.crew[0]
        report()
        time.sleep(0.25)
