"""Where the state is drawn: a live screen in a terminal, a line now and then anywhere else."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from rich.console import Console
from rich.live import Live

from worker.sandbox.demo.screen import ScreenState, render

_LINE_EVERY_SECONDS: Final = 2.0


class Picture:
    """Shows one state, again and again."""

    def __init__(self, console: Console, state: ScreenState) -> None:
        self._console, self._state = console, state
        self._live: Live | None = None
        self._next_line, self._shown, self._now = 0.0, 0, ""

    @contextmanager
    def shown(self) -> Iterator[None]:
        """In a terminal the picture has the whole screen; what stood there before comes back."""
        if not self._console.is_terminal:
            yield
            self._draw_lines(last=True)
            return
        with Live(console=self._console, screen=True, auto_refresh=False) as live:
            self._live = live
            try:
                yield
            finally:
                self._live = None

    def draw(self) -> None:
        """The state as it is now."""
        if self._live is None:
            if not self._console.is_terminal:
                self._draw_lines()
            return
        width, height = self._console.size
        self._live.update(render(self._state, width, height), refresh=True)

    def _draw_lines(self, last: bool = False) -> None:
        state = self._state
        for event in state.events[self._shown :]:
            self._print(f"{event.seconds:5.1f} s  {event.text}")
        self._shown = len(state.events)
        if state.seconds >= self._next_line or last:
            self._next_line = state.seconds + _LINE_EVERY_SECONDS
            self._print(progress_line(state))

    def _print(self, line: str) -> None:
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)


def progress_line(state: ScreenState) -> str:
    """All that counts, in one line."""
    lag = "?" if state.lag is None else f"{state.lag:,}"
    workers = ", ".join(f"{worker.name} {worker.status}" for worker in state.workers)
    return (
        f"{state.seconds:5.1f} s  placed {state.placed['order']:,} of {state.orders:,} orders,"
        f" confirmed {state.counts['confirmed']:,}, rejected {state.counts['rejected']:,},"
        f" dead letters {state.codes.total():,}, lag {lag}; {workers}"
    )
