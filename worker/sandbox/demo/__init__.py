"""`order-worker demo`: a retailer's real orders, two workers, one of them killed, and the proof that it held.

retailer   the orders of the file          feed       what is placed when
shop       settings, tables, catalogue     workers    the worker processes
watch      a subscriber that counts        screen     the live picture (picture: where it is drawn)
evidence   what is in the database         report     checks and tables
story      what happens, in which order
"""

import io
import logging
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.console import Console

from worker.errors import CommandError, UsageError
from worker.sandbox.demo.interruption import Interruption
from worker.sandbox.demo.retailer import Retailer, read_retailer
from worker.sandbox.demo.story import Story
from worker.sandbox.servers.errors import LocalServiceError
from worker.sandbox.servers.folders import data_folder
from worker.sandbox.servers.services import Services, running_services
from worker.settings import Settings, read_settings

SECONDS: Final = 16.0
# Not a setting of the worker: how long the placing takes, for tests that cannot wait.
SECONDS_VARIABLE: Final = "ORDER_WORKER_DEMO_SECONDS"
INTERRUPTED: Final = 128  # and the number of the signal: 130 for Ctrl-C

_PIPE_WIDTH: Final = 120


def run_demo(*, keep: bool = False, seconds: float | None = None) -> int:
    """Run the demo; 0: every check held, 1: one did not, 130: interrupted. Nothing is left running.

    With `keep`, Ctrl-C after the report is the way to end it, and no interruption.
    """
    interruption, console = Interruption(), _console()
    demo = _Demo(interruption, console, keep, seconds or _seconds())
    with interruption.awaited():
        try:
            demo.run()
        except KeyboardInterrupt:
            console.print(f"Stopped: {demo.belongings} are gone, nothing is left running.", highlight=False)
            if demo.held is None:
                return INTERRUPTED + (interruption.signal_number or signal.SIGINT)
        except LocalServiceError as error:
            raise CommandError(str(error)) from None
        except BaseExceptionGroup as group:
            raise _first(group) from None
    return 0 if demo.held else 1


@dataclass(slots=True)
class _Demo:
    interruption: Interruption
    console: Console
    keep: bool
    seconds: float
    belongings: str = "servers, workers and their data"
    held: bool | None = None  # None: not known yet

    def run(self) -> None:
        began = time.monotonic()
        found = read_settings()
        retailer = read_retailer()
        self._introduce(retailer)
        with data_folder() as folder, _logging_to(folder / "demo.log"), self._services(found) as services:
            try:
                story = Story(
                    services=services,
                    given=found,
                    retailer=retailer,
                    folder=folder,
                    console=self.console,
                    seconds=self.seconds,
                    keep=self.keep,
                    began=began,
                    finished=self._finished,
                )
                self.interruption.run(story.tell())
            finally:
                self.interruption.ignore()

    def _finished(self, held: bool) -> None:
        self.held = held
        if not self.keep:
            self.interruption.ignore()

    def _introduce(self, retailer: Retailer) -> None:
        self.console.print(
            f"[bold]order-worker demo[/bold]: {len(retailer.invoices):,} real orders,"
            f" {retailer.lines:,} lines; two workers, one gets killed",
            highlight=False,
        )

    @contextmanager
    def _services(self, found: Settings) -> Iterator[Services]:
        kafka, database = _given(found)
        if kafka and database:
            self._say(
                f"Using Kafka at {kafka} and the PostgreSQL that is set, with topics and a schema of its own"
            )
            self.belongings = "the demo's workers, topics and schema"
        with running_services(given_kafka=kafka, given_database=database, report=self._say) as services:
            yield services

    def _say(self, sentence: str) -> None:
        self.console.print(f" · {sentence}", highlight=False, markup=False)


def _given(found: Settings) -> tuple[str | None, str | None]:
    """What the environment or `.env` names; a default is not a server somebody gave us."""
    given = found.model_fields_set
    kafka = found.kafka_bootstrap_servers if "kafka_bootstrap_servers" in given else None
    database = found.database_url.get_secret_value() if "database_url" in given else None
    return kafka, database


def _seconds() -> float:
    try:
        return float(os.environ.get(SECONDS_VARIABLE) or SECONDS)
    except ValueError:
        raise UsageError(f"{SECONDS_VARIABLE} is not a number of seconds") from None


def _console() -> Console:
    # A terminal or pipe that cannot show a sign gets "?" instead of a traceback.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    console = Console()
    return console if console.is_terminal else Console(width=_PIPE_WIDTH)


@contextmanager
def _logging_to(path: Path) -> Iterator[None]:
    """Log lines of the libraries go to a file: on the terminal they would tear the picture."""
    handler = logging.FileHandler(path)
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)
        handler.close()


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """What went wrong first, of tasks that ran side by side."""
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error
