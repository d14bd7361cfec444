"""Ctrl-C at any time, once: what was started is stopped in order, and a second one does not disturb that."""

import asyncio
import signal
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeVar

T = TypeVar("T")

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interruption:
    """The first SIGINT, SIGTERM or SIGHUP ends the work; after it, and while tidying up, they are ignored."""

    def __init__(self) -> None:
        self.signal_number: int | None = None
        self._cancel: Callable[[], object] | None = None
        self._ignoring = False

    @property
    def happened(self) -> bool:
        return self.signal_number is not None

    @contextmanager
    def awaited(self) -> Iterator[None]:
        """Signals come to us. Afterwards they are ignored: the command is over, Python only closes down."""
        for number in _SIGNALS:
            signal.signal(number, self._on_signal)
        try:
            yield
        finally:
            for number in _SIGNALS:
                signal.signal(number, signal.SIG_IGN)

    def ignore(self) -> None:
        """From here on there is nothing left to interrupt."""
        self._ignoring = True

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run the work in an event loop; a signal cancels it, and its clean-up is not cancelled again."""

        async def cancellable() -> T:
            loop, task = asyncio.get_running_loop(), asyncio.current_task()
            assert task is not None
            # From inside the handler the loop may be anywhere, also asleep in select.
            self._cancel = lambda: loop.call_soon_threadsafe(task.cancel)
            try:
                return await work
            finally:
                self._cancel = None
                self._ignoring = True

        try:
            return asyncio.run(cancellable())
        except asyncio.CancelledError:
            raise KeyboardInterrupt from None

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if self._ignoring or self.happened:
            return
        self.signal_number = number
        if self._cancel is None:
            raise KeyboardInterrupt
        self._cancel()
