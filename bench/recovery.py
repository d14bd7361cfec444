"""How soon a worker decides orders: after its start, after a kill, and while workers join and leave."""

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Final

import psutil

from bench import report
from bench.changing_workers import (
    ORDERS_A_SECOND,
    PARTITIONS,
    Change,
    killed_and_started,
    longest_wait,
    more_and_fewer,
    rolling_restart,
)
from bench.contenders import worker
from bench.crew import Crew
from bench.drain import Look, Scene, decided, rate, require_right, scene, wait_until_shared_out
from bench.errors import BenchError
from bench.kafka import Backlog
from bench.run import Bench
from bench.shop import stock_taken
from bench.workload import Workload

START_ORDERS: Final = 2_000
KILL_ORDERS: Final = 700_000  # whatever the scale: the rate has to be back before they are decided
KILL_AT: Final = 0.25  # of the backlog
WINDOW_SECONDS: Final = 1.0
RECOVERED: Final = 0.95  # of the rate before
_LOOK_SECONDS: Final = 0.1
_STUCK_SECONDS: Final = 120.0


_CHANGES: Final[dict[str, tuple[tuple[str, ...], Change]]] = {
    "SIGKILL to one of two": (("one", "two"), killed_and_started),
    "rolling restart of three": (("one", "two", "three"), rolling_restart),
    "two, four, two workers": (("one", "two"), more_and_fewer),
}


@dataclass(frozen=True, slots=True)
class _Killed:
    """`idle_seconds`: nothing of the killed one's partitions moved for so long."""

    rate_before: float
    lowest_rate: float
    idle_seconds: float
    recovered_seconds: float


def measure(bench: Bench) -> report.Section:
    """Times to the first outcome, and to 95 % of the rate after a SIGKILL."""
    starts = bench.interleaved({"start": lambda: _start(bench)}, "{:.1f} s to the first outcome".format)[
        "start"
    ]
    kills = bench.interleaved(
        {"kill": lambda: _kill(bench)},
        lambda killed: f"{killed.recovered_seconds:.1f} s to {RECOVERED:.0%} of the rate",
    )["kill"]
    changes = bench.interleaved(
        {name: partial(longest_wait, bench, names, change) for name, (names, change) in _CHANGES.items()},
        "{:.1f} s waited longest".format,
    )
    rows = [
        ("start to first outcome, s", *_spread(starts)),
        ("kill: its partitions stood still, s", *_spread([k.idle_seconds for k in kills])),
        (f"kill: to {RECOVERED:.0%} of the rate before, s", *_spread([k.recovered_seconds for k in kills])),
        ("kill: lowest rate meanwhile ÷ before", *_spread([k.lowest_rate / k.rate_before for k in kills])),
        *((f"{name}: longest wait of an order, s", *_spread(waits)) for name, waits in changes.items()),
    ]
    notes = [
        "start: of the process, with orders waiting",
        "kill: SIGKILL to one of `run --workers 2`, which starts it again; every result right",
        f"longest wait: from due to seen, open loop, {ORDERS_A_SECOND:.0f}/s on {PARTITIONS} partitions",
        f"rates in windows of {WINDOW_SECONDS:.0f} s",
    ]
    title = f"Start and recovery, medians of {report.rounds(bench.rounds)}"
    return report.Section("recovery", title, report.Columns(("", "median", "range"), rows), notes)


def _start(bench: Bench) -> float:
    workload, contender = Workload(bench.orders(START_ORDERS)), worker(1)
    with _filled(bench, workload) as (here, folder):
        began = time.monotonic()
        with here.crew(contender, folder) as crew:
            # Asked for offsets of a cluster that has no group yet, librdkafka 2.16 crashes.
            wait_until_shared_out(here, crew)
            first = next(look for look in _looks(here, workload.count, crew.require_alive) if look.orders)
            for _ in _looks(here, workload.count, crew.require_alive):
                pass
            crew.stop()
    return first.at - began


def _kill(bench: Bench) -> _Killed:
    workload = Workload(KILL_ORDERS)
    pair = replace(worker(1), command=(*worker(1).command, "--workers", "2"))
    with _filled(bench, workload) as (here, folder), here.crew(pair, folder) as crew:
        wait_until_shared_out(here, crew, members=2)
        looks: list[Look] = []
        for look in _looks(here, workload.count, crew.require_alive):
            looks.append(look)
            if look.orders >= KILL_AT * workload.count:
                break
        first = min(_workers_of(crew), key=lambda process: process.pid)
        first.kill()
        killed_at = time.monotonic()
        looks.extend(_looks(here, workload.count, crew.require_alive))
        crew.stop()
    return judge(looks, killed_at)


def _workers_of(crew: Crew) -> list[psutil.Process]:
    """The worker processes below a supervisor (between them may be the process that guards it)."""
    found = [p for pid in crew.pids for p in psutil.Process(pid).children(recursive=True)]
    return [process for process in found if process.cmdline()[-3:] == ["-m", "worker", "run"]]


def judge(looks: Sequence[Look], killed_at: float) -> _Killed:
    """The measurements of a kill at that time; BenchError if they end before the rate is back."""
    at_kill = next(look for look in reversed(looks) if look.at <= killed_at)
    before = rate(next(look for look in looks if look.orders), at_kill)
    lowest = before
    resumed_at: float | None = None
    for number, look in enumerate(looks):
        if look.at <= killed_at:
            continue
        long_ago = (one for one in reversed(looks[:number]) if look.at - one.at >= WINDOW_SECONDS)
        start = next(long_ago, looks[0])
        now = rate(start, look)
        if start.at >= killed_at:
            lowest = min(lowest, now)
        moved = all(count > at_kill.by_partition.get(p, 0) for p, count in look.by_partition.items())
        if moved and resumed_at is None:
            resumed_at = look.at
        if resumed_at is not None and now >= RECOVERED * before:
            return _Killed(before, lowest, resumed_at - killed_at, look.at - killed_at)
    raise BenchError("the backlog was drained before the rate was back")


@contextmanager
def _filled(bench: Bench, workload: Workload) -> Iterator[tuple[Scene, Path]]:
    """A scene whose topic has the orders, and a folder for logs; the result is checked at the end."""
    with scene(bench.servers) as here, tempfile.TemporaryDirectory(prefix="order-worker-bench-") as folder:
        before = stock_taken(here.database_url)
        with bench.screen.bars("recovery", workload.count) as (filled, _):
            backlog = Backlog(bench.servers.cluster.bootstrap_servers, here.topics.placed)
            backlog.fill(workload.messages(), filled)
            backlog.release()
        yield here, Path(folder)
        require_right(here, worker(1), workload, before)


def _looks(here: Scene, total: int, require_alive: Callable[[], None]) -> Iterator[Look]:
    """Polls the progress, also while nothing changes, until all are decided."""
    moved_at, seen = time.monotonic(), -1
    while seen < total:
        look = Look(time.monotonic(), decided(here, worker(1)))
        if look.orders > seen:
            seen, moved_at = look.orders, look.at
        elif look.at - moved_at > _STUCK_SECONDS:
            raise BenchError(f"nothing moved for {_STUCK_SECONDS:g} s at {seen} of {total} orders")
        yield look
        require_alive()
        time.sleep(_LOOK_SECONDS)


def _spread(values: Sequence[float]) -> tuple[str, str]:
    return f"{median(values):.2f}", f"{min(values):.2f}–{max(values):.2f}"
