"""What can be done to a server that runs as a process of ours: the same verbs for each."""

import signal
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

from worker.sandbox.servers.processes import Child

_STOP_SECONDS = 20


class LocalServer(ABC):
    """A server whose data and port outlive stop, crash and restart."""

    stop_signal: ClassVar[signal.Signals]
    """asks for an orderly shutdown"""

    def __init__(self, child: Child) -> None:
        self._child = child

    @property
    def log_path(self) -> Path:
        return self._child.log_path

    @property
    def pid(self) -> int | None:
        return self._child.pid

    @property
    def alive(self) -> bool:
        """Whether its process runs, whatever others believe."""
        return self._child.alive

    @abstractmethod
    def start(self) -> None:
        """Return when the server answers its clients."""

    def stop(self) -> None:
        """An orderly shutdown: everything is on disk. Killed if it takes too long."""
        self._child.stop(self.stop_signal, _STOP_SECONDS)

    def crash(self) -> None:
        """`kill -9` of all its processes; the next start recovers what was written."""
        self._child.kill()

    def restart(self) -> None:
        """Stop if it runs, then start on the same data and port."""
        self.stop()
        self.start()

    def freeze(self) -> None:
        """Freeze every process of the server: connections stay open and get no answer."""
        self._child.freeze()

    def thaw(self) -> None:
        """Undo `freeze`."""
        self._child.thaw()

    def abandon(self) -> None:
        """Kill it for good, also out of a start in another thread."""
        self._child.abandon()
