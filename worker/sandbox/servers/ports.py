"""Ports for servers on this machine."""

import random
import socket
import threading
from pathlib import Path

_LOWEST, _HIGHEST = 10_240, 32_767
_ATTEMPTS = 200
_given: set[int] = set()
_lock = threading.Lock()


def free_port(wanted: int | None = None) -> int:
    """A port nobody listens on, and never the same one twice in this process: `wanted`, if it is one.

    Any other lies outside the range from which the kernel takes ports for outgoing connections: a client that
    keeps trying to reach a crashed server could otherwise be given the server's own port, connect to itself,
    and block the restart.
    """
    with _lock:
        candidates = [*([wanted] if wanted else []), *_candidates()]
        port = (
            next((port for port in candidates if port not in _given and _is_free(port)), None)
            or _any_free_port()
        )
        _given.add(port)
        return port


def is_open(port: int, host: str = "127.0.0.1") -> bool:
    """Whether somebody accepts connections there."""
    try:
        with socket.create_connection((host, port), timeout=1):
            return True
    except OSError:
        return False


def _candidates() -> list[int]:
    lowest_outgoing, highest_outgoing = _outgoing_range()
    below = range(_LOWEST, min(_HIGHEST, lowest_outgoing - 1) + 1)
    above = range(max(_LOWEST, highest_outgoing + 1), _HIGHEST + 1)
    return [random.choice(ports) for ports in (below, above) if len(ports) > 1_000 for _ in range(_ATTEMPTS)]


def _outgoing_range() -> tuple[int, int]:
    try:
        lowest, highest = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()
        return int(lowest), int(highest)
    except (OSError, ValueError):
        return 49_152, 65_535  # the range of Macs, and of the standard


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # Servers set this too: a port whose last connections are still in TIME_WAIT is free for them.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _any_free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
