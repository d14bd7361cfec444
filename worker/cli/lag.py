"""`lag`: how far the workers are behind."""

from typing import TYPE_CHECKING, Annotated

import typer

from worker import interruption
from worker.cli.options import AsJson, example, finite, group

if TYPE_CHECKING:
    from worker.settings import Settings

commands = group()


@commands.command(
    epilog=example("order-worker lag", "order-worker lag --watch --interval 5", "order-worker lag --json")
)
def lag(
    watch: Annotated[bool, typer.Option("--watch", help="Look again and again, until Ctrl-C.")] = False,
    interval: Annotated[
        float, typer.Option(min=0.2, max=3_600, callback=finite, metavar="SECONDS", help="Between two looks.")
    ] = 1.0,
    as_json: AsJson = False,
) -> None:
    """Show how far the group is behind in each partition, how fast it goes, and when nothing will wait.

    Rates are measured between two looks, with --watch over the last ten.

    Offsets of transaction markers are no lag. A group that never committed has all of the topic before it.

    With --watch --json each look is one line.
    """
    from worker.settings import read_settings

    interruption.run((_watch if watch else _once)(read_settings(), interval, as_json))


async def _once(settings: "Settings", interval: float, as_json: bool) -> None:
    from contextlib import aclosing

    from worker.operations import screen
    from worker.operations.lag.look import watch_lag
    from worker.operations.lag.terminal import lag_screen

    async with aclosing(watch_lag(settings, interval)) as looks:
        await anext(looks)  # the first one has no rates
        found = await anext(looks)
    if as_json:
        screen.print_json(found)
    else:
        screen.output().print(lag_screen(found))


async def _watch(settings: "Settings", interval: float, as_json: bool) -> None:
    from contextlib import aclosing

    from rich.live import Live

    from worker.operations import screen
    from worker.operations.lag.look import watch_lag
    from worker.operations.lag.terminal import lag_screen

    console = screen.output()
    async with aclosing(watch_lag(settings, interval)) as looks:
        if as_json or not console.is_terminal:
            async for found in looks:
                if as_json:
                    screen.print_json_line(found)
                else:
                    console.print(lag_screen(found), "", sep="\n")
            return
        with Live(console=console, auto_refresh=False) as live:
            async for found in looks:
                live.update(lag_screen(found), refresh=True)
