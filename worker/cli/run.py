"""`run` and `demo`: the worker itself."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from worker.cli.failure import as_command_error, first_of
from worker.cli.options import example, group
from worker.errors import CommandError, UsageError
from worker.standard_streams import write_error

commands = group()


@contextmanager
def last_words(form: str) -> Iterator[None]:
    """With `json`, what ends the block is a line of the log as well, and the process ends with its code."""
    try:
        yield
    except Exception as error:
        if form != "json":
            raise
        from worker.observability.log import last_line

        known = as_command_error(first_of(error))
        code = known.exit_code if known else CommandError.exit_code
        write_error(last_line(known or error, code, with_traceback=known is None))
        raise SystemExit(code) from None


@commands.command(epilog=example("order-worker run", "order-worker run --workers 4"))
def run(
    workers: Annotated[
        int, typer.Option(min=1, max=256, help="Worker processes; more than one are supervised.")
    ] = 1,
) -> None:
    """Decide orders until stopped (SIGTERM or Ctrl-C)."""
    from worker.setting_values import MOST_PORT
    from worker.settings import read_settings

    with last_words(os.environ.get("ORDER_WORKER_LOG_FORMAT", "")):
        settings = read_settings()
    with last_words(settings.log_format):
        if settings.http_port + workers - 1 > MOST_PORT:
            raise UsageError(
                f"--workers {workers}: from ORDER_WORKER_HTTP_PORT={settings.http_port} there are not so many"
                " ports; set a lower one, or 0 for any"
            )
        if workers == 1:
            from worker.runtime.process import run as run_worker

            sys.exit(run_worker(settings))
        from worker.observability.tracing_settings import make_tracing
        from worker.runtime.supervisor import supervise

        # What is wrong with it each worker would say, and be started again.
        make_tracing(os.environ, settings.order_placed_topic, settings.group_id).close()
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
