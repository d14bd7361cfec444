"""What is measured: each contender is a command that drains a topic, in one or more processes."""

import sys
from dataclasses import dataclass
from typing import Final

CONCURRENCY: Final = 16  # of the concurrent baseline, each message with a connection of its own


@dataclass(frozen=True, slots=True)
class Contender:
    """A command and how many processes of it; it reads its servers and topics from `ORDER_WORKER_…`.

    `exactly_once`: outcomes and input offsets are one Kafka transaction, and there is a ledger.
    `plain_role`: it connects as a role that has the rights on the tables and nothing else.
    """

    name: str
    command: tuple[str, ...]
    processes: int
    exactly_once: bool
    environment: tuple[tuple[str, str], ...] = ()
    plain_role: bool = False


def baseline(concurrency: int = 1) -> Contender:
    """One message, one transaction, one publish: bench/baseline.py; `concurrency` messages at a time."""
    name = "baseline" if concurrency == 1 else f"baseline, {concurrency} at a time"
    command = (sys.executable, "-m", "faststream", "run", "bench.baseline:app")
    environment = (("BENCH_BASELINE_CONCURRENCY", str(concurrency)),)
    return Contender(name, command, 1, exactly_once=False, environment=environment)


def worker(processes: int, *, plain_role: bool = False) -> Contender:
    """As an operator starts it, in this many processes.

    As a `plain_role`, which may not set `session_replication_role`: PostgreSQL looks up each foreign key.
    """
    name = f"worker × {processes}{', plain role' if plain_role else ''}"
    command = (sys.executable, "-m", "worker", "run")
    return Contender(name, command, processes, exactly_once=True, plain_role=plain_role)
