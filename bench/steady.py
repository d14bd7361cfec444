"""Latency at the same rates for all: how long an outcome takes while orders come steadily.

As in `latency`, open loop and from when an order is due. A peer is started by its command, and its group has
all partitions before the first order comes; its result is not checked, for it knows nothing of our tables.
"""

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Final

from bench import report
from bench.contenders import worker
from bench.crew import Crew, started
from bench.drain import PARTITIONS, STARTED_WITHIN_SECONDS, Scene, scene
from bench.errors import BenchError
from bench.latency import due_seconds, measure_worker, milliseconds, times_from_due
from bench.peer import Peer, command_of, with_event_ids
from bench.plot import Lines
from bench.run import Bench
from bench.workload import Workload

RATES: Final = (200, 1_000, 3_000, 6_000)  # orders a second
MANY_PARTITIONS: Final = 16
SECONDS: Final = 20.0
MOST_ROUNDS: Final = 2

Entry = tuple[str, int, int]
"""who, orders a second, partitions"""


def measure(bench: Bench, peers: Sequence[Peer]) -> report.Section:
    """A row for each rate, with 4 and with 16 partitions; a column for each contender."""
    seconds = SECONDS * bench.scale
    contenders: dict[str, Callable[[int, int], list[float]]] = {
        "worker × 2": lambda rate, partitions: measure_worker(bench, worker(2), rate, seconds, partitions)
    }
    contenders |= {peer.name: partial(_measure_peer, bench, peer, seconds) for peer in peers}
    loads = [(rate, PARTITIONS) for rate in RATES] + [(rate, MANY_PARTITIONS) for rate in RATES[:3]]
    entries: dict[Entry, Callable[[], list[float]]] = {
        (name, rate, partitions): partial(of_one, rate, partitions)
        for rate, partitions in loads
        for name, of_one in contenders.items()
    }
    names = {_title(entry): entry for entry in entries}
    rounds = replace(bench, rounds=min(bench.rounds, MOST_ROUNDS)).interleaved(
        {title: entries[entry] for title, entry in names.items()}, _both
    )
    results = {entry: rounds[title] for title, entry in names.items()}
    rows = [
        (
            f"{rate:,}/s, {partitions} partitions",
            *(_cell(results[name, rate, partitions]) for name in contenders),
        )
        for rate, partitions in loads
    ]
    curves = {
        name: [(rate, _median(results[name, rate, PARTITIONS], 0.5)) for rate in RATES] for name in contenders
    }
    curves |= {
        f"{name}, p99": [(rate, _median(results[name, rate, PARTITIONS], 0.99)) for rate in RATES]
        for name in contenders
    }
    notes = [
        f"p50 / p99 in ms, from due to seen by a read_committed subscriber; {seconds:.0f} s each,"
        f" medians of {report.rounds(len(next(iter(results.values()))))}, interleaved",
        "every result of the worker's is right; a peer's is not checked",
    ]
    lines = Lines("orders a second, 4 partitions", {"milliseconds": curves}, logarithmic=True)
    columns = report.Columns(("load", *contenders), rows)
    return report.Section("steady", "Latency under a steady load", columns, notes, lines)


def _measure_peer(bench: Bench, peer: Peer, seconds: float, rate: int, partitions: int) -> list[float]:
    due = due_seconds(rate, seconds)
    messages = list(with_event_ids(Workload(len(due))))
    with (
        scene(bench.servers, partitions) as here,
        tempfile.TemporaryDirectory(prefix="order-worker-bench-") as folder,
        started(command_of(peer, here, len(due)), 1, {}, Path(folder)) as crew,
    ):
        wait_until_read(here, crew, peer.name)
        return times_from_due(here, messages, due)


def wait_until_read(here: Scene, crew: Crew, name: str) -> None:
    """Return when the peer's group has all partitions of the input."""
    deadline = time.monotonic() + STARTED_WITHIN_SECONDS
    while not here.servers.cluster.is_read(here.topics):
        crew.require_alive()
        if time.monotonic() > deadline:
            raise BenchError(f"{name} had no partitions within {STARTED_WITHIN_SECONDS:g} s")
        time.sleep(0.2)


def _title(entry: Entry) -> str:
    name, rate, partitions = entry
    return f"{name} {rate:,}/s, {partitions} partitions"


def _both(times: Sequence[float]) -> str:
    return f"p50 {milliseconds(times, 0.5):>6,.0f} ms, p99 {milliseconds(times, 0.99):>6,.0f} ms"


def _median(rounds: Sequence[Sequence[float]], share: float) -> float:
    return median(milliseconds(times, share) for times in rounds)


def _cell(rounds: Sequence[Sequence[float]]) -> str:
    return f"{_median(rounds, 0.5):,.0f} / {_median(rounds, 0.99):,.0f}"
