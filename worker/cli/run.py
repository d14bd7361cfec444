"""`run` and `demo`: the worker itself."""

import sys
from typing import Annotated

import typer

from worker.cli.options import example, group
from worker.errors import CommandError

commands = group()


@commands.command(epilog=example("order-worker run", "order-worker run --workers 4"))
def run(
    workers: Annotated[
        int, typer.Option(min=1, max=256, help="Worker processes; more than one are supervised.")
    ] = 1,
) -> None:
    """Decide orders until told to stop (SIGTERM or Ctrl-C)."""
    from worker.settings import read_settings

    settings = read_settings()
    if workers == 1:
        from worker.runtime.process import run as run_worker

        sys.exit(run_worker(settings))
    from worker.runtime.supervisor import supervise

    sys.exit(supervise(settings, workers))


@commands.command(epilog=example("order-worker demo", "order-worker demo --keep"))
def demo(
    keep: Annotated[bool, typer.Option("--keep", help="Leave everything running until Ctrl-C.")] = False,
) -> None:
    """Show everything at work on servers of its own: nothing to set up, nothing left behind."""
    try:
        from worker.sandbox.demo import run_demo
    except ModuleNotFoundError as error:
        if error.name != "worker.sandbox":
            raise
        raise CommandError(
            "the demo is not part of the worker's image: run it from a checkout of the project (`make demo`)"
        ) from error

    sys.exit(run_demo(keep=keep))
