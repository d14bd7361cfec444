"""`dead-letters`: what could not be decided, looked at, taken out, and sent again."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from worker import interruption
from worker.cli.options import AsJson, Execute, example, group
from worker.errors import CommandError, UsageError

if TYPE_CHECKING:
    from worker.operations.dead_letters.letter import Choice, LetterPlace
    from worker.operations.redrive.json_edit import Change

commands = group("Records that could not be decided: look at them, take them out, send them again.")

Code = Annotated[str | None, typer.Option("--code", help="Only those with this error code.")]
Path_ = Annotated[
    str | None,
    typer.Option("--path", help="Only those with this field path; * is any item: 'items.*.quantity'."),
]
From = Annotated[
    str | None, typer.Option("--from", metavar="TIME", help="Only those that failed then or later.")
]
To = Annotated[str | None, typer.Option("--to", metavar="TIME", help="Only those that failed before then.")]


@commands.command(
    "list",
    epilog=example(
        "order-worker dead-letters list",
        "order-worker dead-letters list --code invalid_order --from 2026-11-23T10:00:00Z",
    ),
)
def list_(
    code: Code = None, path: Path_ = None, start: From = None, end: To = None, as_json: AsJson = False
) -> None:
    """Show the dead letters in groups: how many of each code and field, since when, what was redriven."""
    from worker.operations.dead_letters.read import list_groups
    from worker.operations.dead_letters.terminal import groups_table
    from worker.operations.screen import output, print_json
    from worker.settings import read_settings

    choice = _choice(code, path, start, end)
    groups, unreadable = interruption.run(list_groups(read_settings(), choice, quiet=as_json))
    if as_json:
        print_json(groups)
    elif groups:
        output().print(groups_table(groups))
    else:
        typer.echo("no dead letters" if code is path is start is end is None else "no dead letters like that")
    # A script reads groups out of the list, and nothing else.
    for count in unreadable:
        typer.echo(f"{count}.", err=as_json)


@commands.command(epilog=example("order-worker dead-letters show 2:17"))
def show(
    place: Annotated[str, typer.Argument(help="Partition and offset of the dead letter, like 2:17.")],
    as_json: AsJson = False,
) -> None:
    """Show one dead letter: the record as it came, why it failed, and what was redriven of it."""
    from worker.operations.dead_letters.read import show as look_up
    from worker.operations.dead_letters.terminal import letter_screen
    from worker.operations.screen import output, print_json
    from worker.settings import read_settings

    letter = interruption.run(look_up(read_settings(), _place(place)))
    if as_json:
        print_json(letter)
    else:
        output().print(letter_screen(letter))


@commands.command(
    epilog=example(
        "order-worker dead-letters export --code invalid_order --out letters.jsonl",
        "order-worker dead-letters export --out - | jq .error",
    )
)
def export(
    out: Annotated[Path, typer.Option(help='The file to write; "-" for standard output.', allow_dash=True)],
    code: Code = None,
    path: Path_ = None,
    start: From = None,
    end: To = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
) -> None:
    """Write dead letters as JSON lines: place, source, error, headers, key and value.

    What is not UTF-8 is base64, under key_base64 or value_base64. The file is there when it is whole.
    """
    from worker.operations.dead_letters.read import export as write
    from worker.settings import read_settings

    choice = _choice(code, path, start, end)
    count, unreadable = interruption.run(write(read_settings(), choice, out, force=force))
    where = "" if str(out) == "-" else f" to {out}"
    typer.echo(f"{count:,} dead letter{'' if count == 1 else 's'} written{where}", err=True)
    for met in unreadable:
        typer.echo(f"{met}.", err=True)


@commands.command(
    epilog=example(
        "order-worker dead-letters redrive 2:17",
        "order-worker dead-letters redrive --code data_error --rate 50 --execute",
        "order-worker dead-letters redrive --path items.0.quantity --set items.0.quantity=1 --execute",
    )
)
def redrive(
    places: Annotated[
        list[str] | None, typer.Argument(metavar="[PLACE]...", help="Dead letters, like 2:17; without: all.")
    ] = None,
    code: Code = None,
    path: Path_ = None,
    start: From = None,
    end: To = None,
    change: Annotated[
        str | None,
        typer.Option("--set", metavar="FIELD=JSON", help="Edit one field of each first: items.0.quantity=3"),
    ] = None,
    max_failures: Annotated[
        float, typer.Option(min=0, max=1, help="Stop where a larger share has failed again.")
    ] = 0.1,
    rate: Annotated[float | None, typer.Option(min=0.001, help="Letters a second, at most.")] = None,
    by: Annotated[
        str | None, typer.Option(metavar="NAME", help="Who asks for it; default: the user logged in.")
    ] = None,
    patience: Annotated[
        float, typer.Option(min=1, help="Seconds without progress of the workers until it gives up.")
    ] = 60.0,
    execute: Execute = False,
    as_json: AsJson = False,
) -> None:
    """Send dead letters to the input topic again, each once, ever: 1, 2, 5, 10, … with a look at each step.

    Which ones is settled at the start; what arrives meanwhile is not among them. A letter that fails again
    is a new one. Interrupted, the next run finds out what was sent.
    """
    from worker.operations.redrive import redrive as work
    from worker.operations.redrive import terminal
    from worker.operations.screen import output, print_json, typed_again
    from worker.settings import read_settings

    request = work.RedriveRequest(
        choice=_choice(code, path, start, end, places or ()),
        change=_change(change),
        max_failures=max_failures,
        rate=rate,
        by=_who(by),
        patience_seconds=patience,
        quiet=as_json,
    )
    if not execute:
        rehearsal = interruption.run(work.rehearse(read_settings(), request))
        if as_json:
            print_json(rehearsal)
        else:
            output().print(terminal.rehearsal_screen(rehearsal, request))
            # Never folded: it is there to be copied.
            typer.echo(typed_again())
        return
    report = interruption.run(work.redrive(read_settings(), request))
    if as_json:
        print_json(report)
    else:
        output().print(terminal.report_screen(report))
    if report.stopped:
        raise CommandError(terminal.stopped_text(report))


def _choice(
    code: str | None,
    path: str | None,
    start: str | None,
    end: str | None,
    places: "list[str] | tuple[str, ...]" = (),
) -> "Choice":
    from contracts.events import DeadLetterCode
    from worker.kafka.offsets import parse_time
    from worker.operations.dead_letters.letter import UNMARKED, Choice

    codes = [*(known.value for known in DeadLetterCode), UNMARKED]
    if code is not None and code not in codes:
        raise UsageError(f"--code {code}: there is no such code; the codes are {', '.join(codes)}")
    since = parse_time(start, "--from") if start else None
    until = parse_time(end, "--to") if end else None
    if since and until and since >= until:
        raise UsageError(f"--from {start} is not before --to {end}")
    return Choice(frozenset(map(_place, places)), code, path, since, until)


def _place(text: str) -> "LetterPlace":
    from worker.operations.dead_letters.letter import parse_place

    place = parse_place(text)
    if place is None:
        raise UsageError(f"{text}: write a place as partition:offset, like 2:17")
    return place


def _change(text: str | None) -> "Change | None":
    if text is None:
        return None
    from worker.operations.redrive.json_edit import ChangeError, parse_change

    try:
        return parse_change(text)
    except ChangeError as error:
        raise UsageError(f"--set: {error}") from None


def _who(by: str | None) -> str:
    from getpass import getuser

    try:
        name = by or getuser()
    except (OSError, KeyError, ImportError):
        return "unknown"
    return name.encode(errors="replace").decode()
