"""An outside command as one more row: it drains one of our topics and prints `orders/s=N`.

It knows nothing of our tables and contract, so its result is not checked here.
"""

import re
import shlex
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID, uuid5

from bench.drain import Drained, Scene, scene
from bench.errors import BenchError
from bench.kafka import Backlog
from bench.run import Bench
from bench.workload import Workload
from worker.operations.place.messages import Message

_RATE: Final = re.compile(r"orders/s\s*=\s*([0-9.]+)")
_LIMIT_SECONDS: Final = 600.0
_EVENT_IDS: Final = UUID("3f1e6a52-6c6b-4e57-9f0e-7a39f0c3a8d1")

HELP: Final = (
    "NAME=COMMAND: one more column. Of the command {orders}, {bootstrap}, {database}, {placed} and"
    " {outcomes} are replaced; it prints orders/s=N. A name with :N drains N orders."
)


@dataclass(frozen=True, slots=True)
class Peer:
    """`orders` is how many it drains; the same as the worker where it says nothing."""

    name: str
    command: str
    orders: int | None = None


def parse(text: str) -> Peer:
    """`NAME=COMMAND` or `NAME:ORDERS=COMMAND`; ValueError with what is wrong."""
    name, is_there, command = text.partition("=")
    name, counted, orders = name.partition(":")
    if not (is_there and name.strip() and command.strip()) or (counted and not orders.isdigit()):
        raise ValueError(f"NAME=COMMAND or NAME:ORDERS=COMMAND, and not {text!r}")
    try:
        command.format(orders=1, bootstrap="", database="", placed="", outcomes="")
    except (KeyError, IndexError, ValueError) as error:
        raise ValueError(f"unknown placeholder in {command!r}: {error}") from None
    return Peer(name.strip(), command, int(orders) if counted else None)


def measure(bench: Bench, peer: Peer, workload: Workload) -> Drained:
    """What the command prints. It gets a topic with the orders and a topic for its outcomes."""
    with scene(bench.servers) as here, bench.screen.bars(peer.name, workload.records) as (filled, _):
        backlog = Backlog(bench.servers.cluster.bootstrap_servers, here.topics.placed)
        backlog.fill(with_event_ids(workload), filled)
        backlog.release()
        return Drained(_run(peer.name, command_of(peer, here, workload.count)), None, None)


def command_of(peer: Peer, here: Scene, orders: int) -> list[str]:
    """Its command for this many orders on these servers."""
    return shlex.split(
        peer.command.format(
            orders=orders,
            bootstrap=here.servers.cluster.bootstrap_servers,
            database=here.database_url,
            placed=here.topics.placed,
            outcomes=here.topics.confirmed,
        )
    )


def with_event_ids(workload: Workload) -> Iterator[Message]:
    """The workload's messages, each with an id of its event: peers may want it, the worker ignores it."""
    for message in workload.messages():
        event_id = uuid5(_EVENT_IDS, message.key.decode())
        yield Message(message.key, message.value[:-1] + f',"event_id":"{event_id}"}}'.encode())


def _run(name: str, command: Sequence[str]) -> float:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_LIMIT_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BenchError(f"peer {name}: {error}") from None
    found = _RATE.search(done.stdout)
    if done.returncode or not found:
        said = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["nothing"]
        raise BenchError(f"peer {name} ended with {done.returncode} and no orders/s=N; it said: {said[0]}")
    return float(found.group(1))
