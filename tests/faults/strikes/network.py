"""The network between the workers and their servers: for arenas whose workers go through it.

Only the workers use it. The campaign itself connects directly.
"""

from collections.abc import Callable
from typing import Final

from tests.faults.arena import Arena
from tests.faults.proxy import Proxy
from tests.faults.strikes import INJECTIONS, Strike

Which = Callable[[Arena], Proxy]
_SLOW_SECONDS: Final = 0.02  # a chunk, each way: some thirty of them make a batch
_TOO_SLOW_SECONDS: Final = 1.0


def to_database(arena: Arena) -> Proxy:
    return arena.site.database_network


def to_kafka(arena: Arena) -> Proxy:
    return arena.site.kafka_network


def cut(which: Which) -> Strike:
    def cut_again_and_again(arena: Arena) -> None:
        """Every connection to the server is reset, again and again."""
        for _ in range(INJECTIONS):
            arena.some_progress()
            arena.injected += which(arena).connections > 0
            which(arena).cut()

    return cut_again_and_again


def half_open(which: Which) -> Strike:
    def stall(arena: Arena) -> None:
        """Connections stay open and carry nothing, until a worker has given up on the server."""
        try:
            with arena.given_up():
                which(arena).stall()
        finally:
            which(arena).heal()
        arena.injected += 1

    return stall


def slow(which: Which) -> Strike:
    def delay(arena: Arena) -> None:
        """Every answer comes late; then so late that the workers give up."""
        try:
            which(arena).delay(_SLOW_SECONDS)
            for _ in range(2):
                arena.some_progress()
            with arena.retrying():
                which(arena).delay(_TOO_SLOW_SECONDS)
                arena.feed(1 / 8)
        finally:
            which(arena).heal()
        arena.injected += 1

    return delay


def lost_commit_replies(arena: Arena) -> None:
    """The database commits, and the reply to the COMMIT is lost."""
    network = arena.site.database_network
    for number in range(INJECTIONS):
        arena.some_progress()
        before = network.swallowed_bytes
        try:
            network.drop_replies(after=b"COMMIT")
            arena.feed(1 / 24)
            arena.until(lambda: network.swallowed_bytes > before or arena.is_over())  # noqa: B023
            if number == 0:  # the first time the worker gives up by itself; later its connection is reset
                with arena.retrying():
                    pass
        finally:
            network.heal()
        arena.injected += network.swallowed_bytes > before


def lost_kafka_replies(arena: Arena) -> None:
    """Kafka does what it is asked, and every reply is lost, until a worker gives up."""
    try:
        with arena.given_up():
            arena.site.kafka_network.drop_replies()
    finally:
        arena.site.kafka_network.heal()
    arena.injected += 1
