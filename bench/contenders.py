"""What is measured: each contender is a command that drains a topic, in one or more processes."""

import sys
from dataclasses import dataclass
from typing import Final

CONCURRENCY: Final = 16  # of the concurrent baseline, each message with a connection of its own


@dataclass(frozen=True, slots=True)
class Contender:
    """A command and how many processes of it; it reads its servers and topics from `ORDER_WORKER_…`.

    `exactly_once`: outcomes and input offsets are one Kafka transaction, and there is a ledger.
    """

    name: str
    command: tuple[str, ...]
    processes: int
    exactly_once: bool
    environment: tuple[tuple[str, str], ...] = ()


def baseline(concurrency: int = 1) -> Contender:
    """One message, one transaction, one publish: bench/baseline.py; so many messages at a time."""
    name = "baseline" if concurrency == 1 else f"baseline, {concurrency} at a time"
    command = (sys.executable, "-m", "faststream", "run", "bench.baseline:app")
    environment = (("BENCH_BASELINE_CONCURRENCY", str(concurrency)),)
    return Contender(name, command, 1, exactly_once=False, environment=environment)


def worker(processes: int) -> Contender:
    """As an operator starts it, so many times."""
    return Contender(
        f"worker × {processes}", (sys.executable, "-m", "worker", "run"), processes, exactly_once=True
    )
