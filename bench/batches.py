"""What a batch of each size costs: CPU of worker, PostgreSQL and Kafka, and the worker's requests to both.

Batches of one size come evenly, each to one partition and sent as one, far enough apart that none meets the
next. What the same processes use in the same time without orders is subtracted. Kafka's share includes the
requests of the producer of the orders. Nobody reads the outcomes.
"""

import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Final

from confluent_kafka import Producer

from bench import report
from bench.contenders import Contender
from bench.counted_worker import KAFKA_REQUESTS, POSTGRES_MESSAGES, WAKE_UPS
from bench.crew import Crew, cpu_seconds, started
from bench.drain import PARTITIONS, Scene, require_right, scene, wait_until_shared_out
from bench.errors import BenchError
from bench.peer import Peer, command_of, with_event_ids
from bench.run import Bench
from bench.shop import stock_taken
from bench.steady import wait_until_read
from bench.workload import Workload
from worker.operations.place.messages import Message

SIZES: Final = (1, 10, 100, 1_000)  # orders
BATCHES: Final = 150
APART_SECONDS: Final = 0.1  # a batch of 1,000 orders takes half of it
WARM_UP_BATCHES: Final = 50  # Kafka compiles what it runs often
IDLE_SECONDS: Final = 5.0
SETTLED_SECONDS: Final = 1.0  # after the last batch
MOST_ROUNDS: Final = 2
LEAST_SHOWN: Final = 0.05  # requests of a kind, for one batch

_CPU: Final = ("client", "Postgres", "Kafka")
_COUNTED: Final = (POSTGRES_MESSAGES, KAFKA_REQUESTS, WAKE_UPS)
_COUNTED_WITHIN_SECONDS: Final = 10.0

Usage = Mapping[str, float]
"""CPU milliseconds by process, and a worker's counts by name"""
Look = Callable[[], Usage]


def measure(bench: Bench, peers: Sequence[Peer]) -> report.Section:
    """A row for each size of a batch and each contender."""
    entries: dict[str, Callable[[], Usage]] = {}
    for size in SIZES:
        entries[f"{size:,}, worker × 1"] = partial(_measure_worker, bench, size)
        for peer in peers:
            entries[f"{size:,}, {peer.name}"] = partial(_measure_peer, bench, peer, size)
    rounds = replace(bench, rounds=min(bench.rounds, MOST_ROUNDS)).interleaved(entries, _in_short)
    rows = [(name, *_cells(results)) for name, results in rounds.items()]
    smallest = next(iter(rounds.values()))[0]
    kinds = {name: n for name, n in smallest.items() if n > LEAST_SHOWN and name not in (*_CPU, *_COUNTED)}
    notes = [
        f"CPU in ms, and requests, for one batch: of {_batches(bench)}, {1_000 * APART_SECONDS:.0f} ms apart,"
        f" less what is used without orders; medians of {report.rounds(len(next(iter(rounds.values()))))}",
        "each batch of one partition; Kafka's share includes taking the orders",
        "what a worker asks of Kafka for one order: "
        + ", ".join(f"{name} {n:.1f}" for name, n in sorted(kinds.items(), key=lambda one: -one[1])),
        "every result of the worker's is right; a peer's is not checked",
    ]
    head = ("orders", *_CPU, "sum", *_COUNTED)
    return report.Section("batches", "What a batch costs", report.Columns(head, rows), notes)


def _batches(bench: Bench) -> int:
    return max(20, round(BATCHES * bench.scale))


def _measure_worker(bench: Bench, size: int) -> Usage:
    workload = Workload(size * (WARM_UP_BATCHES + _batches(bench)))
    with (
        scene(bench.servers) as here,
        tempfile.TemporaryDirectory(prefix="order-worker-bench-") as name,
    ):
        counts = Path(name) / "counts.json"
        command = (sys.executable, "-m", "bench.counted_worker", str(counts))
        contender = Contender("worker × 1", command, 1, exactly_once=True)
        before = stock_taken(here.database_url)
        with here.crew(contender, Path(name)) as crew:
            wait_until_shared_out(here, crew)
            messages = list(workload.messages())
            usage = _of_one_batch(here, messages, size, lambda: _cpu(here, crew) | _counts(crew, counts))
            crew.stop()
        require_right(here, contender, workload, before)
    return usage


def _measure_peer(bench: Bench, peer: Peer, size: int) -> Usage:
    workload = Workload(size * (WARM_UP_BATCHES + _batches(bench)))
    with (
        scene(bench.servers) as here,
        tempfile.TemporaryDirectory(prefix="order-worker-bench-") as name,
        # It ends after so many orders, one more than come: its CPU is to be seen after the last one.
        started(command_of(peer, here, workload.count + 1), 1, {}, Path(name)) as crew,
    ):
        wait_until_read(here, crew, peer.name)
        return _of_one_batch(here, list(with_event_ids(workload)), size, lambda: _cpu(here, crew))


def _of_one_batch(here: Scene, messages: Sequence[Message], size: int, look: Look) -> Usage:
    producer = Producer(
        {"bootstrap.servers": here.servers.cluster.bootstrap_servers, "acks": "all", "log_level": 0}
    )
    batches = [messages[start : start + size] for start in range(0, len(messages), size)]
    _produce(producer, here.topics.placed, batches[:WARM_UP_BATCHES])
    time.sleep(SETTLED_SECONDS)
    before_idle, began_idle = look(), time.monotonic()
    time.sleep(IDLE_SECONDS)
    before, began = look(), time.monotonic()
    measured = batches[WARM_UP_BATCHES:]
    _produce(producer, here.topics.placed, measured)
    time.sleep(SETTLED_SECONDS)
    after, ended = look(), time.monotonic()
    idle = (ended - began) / (began - began_idle)
    return {
        name: (used - before.get(name, 0) - idle * (before.get(name, 0) - before_idle.get(name, 0)))
        / len(measured)
        for name, used in after.items()
    }


def _produce(producer: Producer, topic: str, batches: Sequence[Sequence[Message]]) -> None:
    for number, batch in enumerate(batches):
        due = time.monotonic() + APART_SECONDS
        for message in batch:
            producer.produce(topic, message.value, message.key, partition=number % PARTITIONS)
        if producer.flush(30):
            raise BenchError("Kafka did not take all orders within 30 s")
        time.sleep(max(0.0, due - time.monotonic()))


def _cpu(here: Scene, crew: Crew) -> dict[str, float]:
    crew.require_alive()
    pids = (crew.pids, [here.servers.postgres_pid], [here.servers.kafka_pid])
    return {name: 1_000 * cpu_seconds(of_one) for name, of_one in zip(_CPU, pids, strict=True)}


def _counts(crew: Crew, file: Path) -> dict[str, float]:
    """What the worker has counted so far."""
    file.unlink(missing_ok=True)
    os.kill(crew.pids[0], signal.SIGUSR1)
    deadline = time.monotonic() + _COUNTED_WITHIN_SECONDS
    while not file.exists():
        crew.require_alive()
        if time.monotonic() > deadline:
            raise BenchError(f"the worker wrote no counts within {_COUNTED_WITHIN_SECONDS:g} s")
        time.sleep(0.01)
    counts: dict[str, float] = json.loads(file.read_text(encoding="utf-8"))
    return counts


def _in_short(usage: Usage) -> str:
    return f"{sum(usage[name] for name in _CPU):>7.1f} ms of CPU a batch"


def _cells(results: Sequence[Usage]) -> list[str]:
    medians = {name: median(usage[name] for usage in results) for name in results[0]}
    sums = median(sum(usage[name] for name in _CPU) for usage in results)
    cpu = [*(medians[name] for name in _CPU), sums]
    counted = [f"{medians[name]:.1f}" if name in medians else "" for name in _COUNTED]
    return [*(f"{each:.1f}" for each in cpu), *counted]
