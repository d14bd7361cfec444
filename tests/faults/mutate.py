"""`python -m tests.faults.mutate`: removes the worker's rules one at a time, and shows which run notices."""

import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console

from tests.faults.mutations import (
    LESS_PATIENT,
    MUTATIONS,
    Edit,
    Mutation,
    NotTheSourceError,
    Test,
    Trial,
    edited,
)

ROOT: Final = Path(__file__).parent.parent.parent
DEADLINE_SECONDS: Final = 300.0

HELP = """Removes the worker's rules one at a time, each by a small mistake, and shows which run notices.

A rule whose removal no run notices is a hole in the campaign. Each mistake is made in a copy of the tracked
files, and the campaign is run there. Ends with 1 if a rule survived its removal, if a mistake only kept the
workers from working, which proves nothing, or if the files as they are do not pass.

Examples:

    python -m tests.faults.mutate                           every rule

    python -m tests.faults.mutate --only stock-guard,fingerprint --no-control

    python -m tests.faults.mutate --report mutations.md     a table of what was shown
"""

# What a violation says when a promise broke. Anything else, such as an exit code, proves no rule.
_PROMISES: Final = (
    "FAILED ",
    "published too often",
    "never published",
    "never decided",
    "never placed",
    "published under several event ids",
    "in other bytes than the ledger's",
    "gone in the end",
    "not seen by a subscriber",
    "seen again or out of order",
    "missing dead letters",
    "dead letters that should not be",
    "stock is not conserved",
    "ledger and orders disagree",
    "items and total disagree",
    "was confirmed against",
    "list the reason",
    "lists a wrong reason",
    "which came later",
    "whose offset is not committed",
    "decided from a place where it does not lie",
    "skipped, and not on record",
    "skipped, though it could be decided",
    "still open",
)
_NO_PROGRESS: Final = re.compile(r"AssertionError: not within .* decided [1-9]\d* of \d+")


class Result(StrEnum):
    """What the runs of a mutation have shown."""

    RED = "red"
    SURVIVED = "SURVIVED"
    INVALID = "invalid"


@dataclass(frozen=True)
class Shown:
    """The result of one mutation. `trial` and `violation`: what noticed it, or the last that did not."""

    mutation: Mutation
    result: Result
    trial: Trial | Test
    violation: str
    seconds: float


def main(
    only: Annotated[str, typer.Option(help="Comma separated, or all. --list shows them.")] = "all",
    control: Annotated[bool, typer.Option(help="First, the files as they are have to pass.")] = True,
    report: Annotated[Path | None, typer.Option(metavar="FILE", help="A Markdown table.")] = None,
    list_: Annotated[bool, typer.Option("--list", help="Name the rules and end.")] = False,
) -> None:
    chosen = _chosen(only)
    if list_:
        for one in chosen:
            typer.echo(f"{one.name:<34}{one.rule}")
        return
    console = Console(stderr=True, highlight=False)
    if control and not _passes(chosen, console):
        raise typer.Exit(1)
    # A process started in the background ignores SIGINT, and so would its runs, which it has to end.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    shown = []
    try:
        for one in chosen:
            with console.status(f"{one.name}: {one.mistake}"):
                shown.append(_show(one))
            _print(shown[-1], console)
    except NotTheSourceError as error:
        console.print(f"[red]{error}[/red]")
        raise typer.Exit(1) from None
    if report:
        report.write_text(_markdown(shown), encoding="utf-8")
    red = sum(one.result is Result.RED for one in shown)
    console.print(f"\n{len(shown)} rules removed: {red} noticed")
    raise typer.Exit(0 if red == len(shown) else 1)


def _passes(chosen: Sequence[Mutation], console: Console) -> bool:
    """Whether the unchanged files pass every run that a mutation names."""
    trials = sorted({trial for one in chosen for trial in one.shown_by}, key=str)
    with _copy("control") as folder:
        for trial in trials:
            began = time.monotonic()
            with console.status(f"control: {trial}"):
                violations = _run(folder, trial)
            _line(
                console, "control", "as it is", str(trial), time.monotonic() - began, "".join(violations[:1])
            )
            if violations:
                return False
    return True


def _show(mutation: Mutation) -> Shown:
    began = time.monotonic()
    result, trial, violation = Result.SURVIVED, mutation.shown_by[0], ""
    with _copy(mutation.name, mutation.edits) as folder:
        for trial in mutation.shown_by:
            violations = _run(folder, trial)
            if broken := next((v for v in violations if _is_of_a_promise(v)), None):
                result, violation = Result.RED, broken
                break
            if violations:
                result, violation = Result.INVALID, violations[0]
    return Shown(mutation, result, trial, violation, time.monotonic() - began)


def _is_of_a_promise(violation: str) -> bool:
    return (
        violation.startswith("FAILED ")
        or any(words in violation for words in _PROMISES)
        or bool(_NO_PROGRESS.match(violation))
    )


@contextmanager
def _copy(name: str, edits: Sequence[Edit] = ()) -> Iterator[Path]:
    """A folder with the tracked files as they are now, but for the edits and the campaign's patience."""
    texts = edited(name, [*edits, LESS_PATIENT], ROOT)
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True)
    with tempfile.TemporaryDirectory(prefix="mutation-") as temporary:
        folder = Path(temporary)
        for path in filter(None, listed.stdout.split("\0")):
            if (ROOT / path).is_file():
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / path, folder / path)
        for path, text in texts.items():
            (folder / path).write_text(text, encoding="utf-8")
        yield folder


def _run(folder: Path, trial: Trial | Test) -> list[str]:
    """What is violated; of a run that could not be judged, how it ended."""
    if isinstance(trial, Test):
        code, lines = _output(
            folder, "pytest", "-q", "-p", "no:cacheprovider", trial.path, "-k", trial.matching
        )
        return [line for line in lines if line.startswith("FAILED ")] or _unclear(code, lines)
    what = ("--faults", trial.fault, "--first-seed", str(trial.seed), "--orders", str(trial.orders))
    code, lines = _output(folder, "tests.faults", *what)
    return [line.strip() for line in lines if line.startswith("    ")] or _unclear(code, lines)


def _unclear(code: int | None, lines: Sequence[str]) -> list[str]:
    if code is None:
        return [f"it did not end within {DEADLINE_SECONDS:.0f} s"]
    return [f"it ended with {code}: {lines[-1] if lines else ''}"] if code else []


def _output(folder: Path, module: str, *arguments: str) -> tuple[int | None, list[str]]:
    """The exit code of `python -m module`, None if it did not end in time, and the lines that it wrote."""
    command = (sys.executable, "-m", module, *arguments)
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        try:
            output, _ = process.communicate(timeout=DEADLINE_SECONDS)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)  # it stops its servers and workers itself
            process.communicate(timeout=60)
            return None, []
    return process.returncode, output.decode(errors="replace").splitlines()


def _print(shown: Shown, console: Console) -> None:
    _line(console, shown.mutation.name, shown.result, str(shown.trial), shown.seconds, shown.violation)


def _line(console: Console, name: str, what: str, trial: str, seconds: float, more: str) -> None:
    line = f"{name:<34}{what:<10}{trial:<52}{seconds:>6.1f} s  {more}".rstrip()
    console.print(line, markup=False, soft_wrap=True)


def _markdown(shown: Iterable[Shown]) -> str:
    rows = [("rule", "removed by", "shown by", "violation"), ("---",) * 4]
    for one in shown:
        by = str(one.trial) if one.result is Result.RED else f"**{one.result}**"
        rows.append((one.mutation.rule, one.mutation.mistake, by, one.violation and f"`{one.violation}`"))
    return "".join(f"| {' | '.join(cell.replace('|', '/') for cell in row)} |\n" for row in rows)


def _chosen(only: str) -> list[Mutation]:
    if only == "all":
        return list(MUTATIONS)
    names = only.split(",")
    known = {one.name: one for one in MUTATIONS}
    if unknown := [name for name in names if name not in known]:
        raise typer.BadParameter(f"--only takes names of --list; unknown: {', '.join(unknown)}")
    return [known[name] for name in names]


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command(help=HELP)(main)
    app(prog_name="python -m tests.faults.mutate")
