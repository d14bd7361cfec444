"""What is measured: each contender is a command that drains a topic, in one or more processes."""

import sys
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Contender:
    """A command and how many processes of it; it reads its servers and topics from `ORDER_WORKER_…`.

    `exactly_once`: outcomes and input offsets are one Kafka transaction, and there is a ledger.
    """

    name: str
    command: tuple[str, ...]
    processes: int
    exactly_once: bool


def baseline() -> Contender:
    """One message, one transaction, one publish: bench/baseline.py."""
    command = (sys.executable, "-m", "faststream", "run", "bench.baseline:app")
    return Contender("baseline", command, 1, exactly_once=False)


def worker(processes: int) -> Contender:
    """As an operator starts it, so many times."""
    return Contender(
        f"worker × {processes}", (sys.executable, "-m", "worker", "run"), processes, exactly_once=True
    )
