"""Progress on standard error: bars on a terminal, a line for each result elsewhere."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

_COLUMNS: Final = (
    TextColumn("{task.description}"),
    BarColumn(),
    MofNCompleteColumn(),
    TimeElapsedColumn(),
)
_WITH_RATE: Final = (*_COLUMNS[:-1], TextColumn("{task.fields[rate]}"), _COLUMNS[-1])


class Screen:
    """Says what is being measured."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)

    def say(self, sentence: str) -> None:
        self._console.print(sentence, soft_wrap=True)

    @contextmanager
    def bars(self, title: str, total: int) -> Iterator[tuple[Callable[[int], None], Callable[[int], None]]]:
        """Two bars that vanish at the end: for filling the topic and for draining it."""
        shown = self._console.is_terminal
        with Progress(*_COLUMNS, console=self._console, transient=True, disable=not shown) as progress:
            filling = progress.add_task(f"{title}: placing", total=total)
            draining = progress.add_task(f"{title}: deciding", total=total)
            yield (
                lambda orders: progress.update(filling, completed=orders),
                lambda orders: progress.update(draining, completed=orders),
            )


@contextmanager
def bar(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar that vanishes at the end, with a rate, on a terminal only; gives what takes each step."""
    console = Console(stderr=True)
    began = time.monotonic()
    with Progress(*_WITH_RATE, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(title, total=total, rate="")

        def advance(count: int) -> None:
            progress.advance(task, count)
            rate = progress.tasks[task].completed / (time.monotonic() - began)
            progress.update(task, rate=f"{rate:,.0f}/s")

        yield advance
