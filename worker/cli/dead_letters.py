"""`dead-letters`: list, show, export, redrive and settle records that could not be decided."""

from pathlib import Path
from typing import Annotated

import typer

from worker import interruption
from worker.cli.letter_options import (
    Code,
    From,
    Path_,
    To,
    WithSettled,
    choice_of,
    edits_of,
    place_of,
)
from worker.cli.options import (
    AsJson,
    By,
    Execute,
    Force,
    MaxFailures,
    Patience,
    Rate,
    example,
    group,
    operator_name,
)
from worker.errors import CommandError, UsageError

commands = group(
    "Records that could not be decided: list, show and export them, send them again, settle them."
)


@commands.command(
    "list",
    epilog=example(
        "order-worker dead-letters list",
        "order-worker dead-letters list --code invalid_order --from 2026-11-23T10:00:00Z",
    ),
)
def list_(
    code: Code = None,
    path: Path_ = None,
    start: From = None,
    end: To = None,
    settled: WithSettled = False,
    as_json: AsJson = False,
) -> None:
    """Show the open dead letters in groups: how many of each code and field, since when, what was redriven.

    "confirmed since", "rejected since": so many of their order ids are decided by now, for any content.
    """
    from worker.operations.dead_letters.read import list_groups
    from worker.operations.dead_letters.terminal import groups_table
    from worker.operations.screen import output, print_json, shown
    from worker.settings import read_settings

    choice = choice_of(code, path, start, end)
    listed = interruption.run(list_groups(read_settings(), choice, with_settled=settled, quiet=as_json))
    what = "no open dead letters" if listed.settled else "no dead letters"
    if as_json:
        print_json(listed.groups)
    elif listed.groups:
        output().print(groups_table(listed.groups))
    else:
        typer.echo(what if code is path is start is end is None else f"{what} like that")
    # A script reads groups out of the list, and nothing else.
    if listed.settled and not settled:
        typer.echo(f"{listed.settled:,} settled, and left out: --settled shows them too.", err=as_json)
    for count in listed.unreadable:
        typer.echo(shown(f"{count}."), err=as_json)


@commands.command(epilog=example("order-worker dead-letters show 2:17"))
def show(
    place: Annotated[str, typer.Argument(help="Partition and offset of the dead letter, like 2:17.")],
    as_json: AsJson = False,
) -> None:
    """Show one dead letter: the record as it came, why it failed, and what became of it and its order."""
    from worker.operations.dead_letters.read import show as look_up
    from worker.operations.dead_letters.terminal import letter_screen
    from worker.operations.screen import output, print_json
    from worker.settings import read_settings

    letter = interruption.run(look_up(read_settings(), place_of(place)))
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
    force: Force = False,
) -> None:
    """Write dead letters as JSON lines: place, source, error, headers, key and value.

    What is not UTF-8 is base64, under key_base64 or value_base64. The file appears when it is complete.
    """
    from worker.operations.dead_letters.export import export as write
    from worker.operations.screen import shown
    from worker.settings import read_settings

    choice = choice_of(code, path, start, end)
    count, unreadable = interruption.run(write(read_settings(), choice, out, force=force))
    where = "" if str(out) == "-" else f" to {out}"
    typer.echo(f"{count:,} dead letter{'' if count == 1 else 's'} written{where}", err=True)
    for met in unreadable:
        typer.echo(shown(f"{met}."), err=True)


@commands.command(
    epilog=example(
        "order-worker dead-letters redrive 2:17",
        "order-worker dead-letters redrive --code data_error --rate 50 --execute",
        "order-worker dead-letters redrive 2:17 --set user_id=7 --set 'items.*.quantity=1' --execute",
        "order-worker dead-letters redrive --from-file fixed.jsonl --execute",
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
    settled: WithSettled = False,
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="FIELD=JSON",
            help="Edit a field of each: items.0.quantity=3, 'items.*.quantity=3'; can be repeated.",
        ),
    ] = None,
    from_file: Annotated[
        Path | None,
        typer.Option("--from-file", metavar="FILE", help="JSON lines with the edit of each dead letter."),
    ] = None,
    max_failures: MaxFailures = 0.1,
    rate: Rate = None,
    by: By = None,
    patience: Patience = 60.0,
    execute: Execute = False,
    as_json: AsJson = False,
) -> None:
    """Send dead letters to the input topic again, each only once. Steps of 1, 2, 5, 10, … with a check each.

    The set is fixed at the start: dead letters that arrive meanwhile are left out. One that fails again is a
    new dead letter. If a run is interrupted, the next one finds out what was sent.

    Left out, unless their places are given: those of order_id_conflict (or --code), and settled ones.

    --from-file: {"place": "2:17", "set": {"user_id": 7}} a line, or with "value" and the whole order.
    """
    from dataclasses import replace

    from worker.operations.dead_letters.letter import Choice
    from worker.operations.redrive import redrive as work
    from worker.operations.redrive import terminal
    from worker.operations.screen import output, print_json, repeated_command_line
    from worker.settings import read_settings

    choice, edits = choice_of(code, path, start, end, places or ()), edits_of(changes, from_file)
    if edits.lines:
        if changes or choice != Choice():
            raise UsageError(
                "--from-file names the dead letters and their edits: leave out --set and all filters"
            )
        choice = Choice(frozenset(edits.lines))
    request = work.RedriveRequest(
        choice=replace(choice, with_settled=settled),
        edits=edits,
        max_failures=max_failures,
        rate=rate,
        by=operator_name(by),
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
            typer.echo(repeated_command_line())
        return
    report = interruption.run(work.redrive(read_settings(), request))
    if as_json:
        print_json(report)
    else:
        output().print(terminal.report_screen(report))
    if report.stopped:
        raise CommandError(terminal.stopped_text(report))


@commands.command(
    epilog=example(
        "order-worker dead-letters settle 2:17",
        'order-worker dead-letters settle 2:17 3:4 --note "sent again under a new id, see 4711" --execute',
        'order-worker dead-letters settle --code order_id_conflict --note "upstream is fixed" --execute',
    )
)
def settle(
    places: Annotated[
        list[str] | None, typer.Argument(metavar="[PLACE]...", help="Dead letters, like 2:17.")
    ] = None,
    code: Code = None,
    path: Path_ = None,
    start: From = None,
    end: To = None,
    note: Annotated[str | None, typer.Option("--note", metavar="TEXT", help="Why; for the record.")] = None,
    by: By = None,
    execute: Execute = False,
    as_json: AsJson = False,
) -> None:
    """Mark dead letters as dealt with: who, when and why is on record. Without --execute: a rehearsal.

    They stay in their topic, but `list` and `redrive` leave them out.
    """
    from worker.operations import screen
    from worker.operations.dead_letters import settle as operation
    from worker.operations.dead_letters.letter import Choice
    from worker.operations.dead_letters.terminal import settle_screen
    from worker.operations.skip.plan import LONGEST_NOTE, require_text
    from worker.settings import read_settings

    choice = choice_of(code, path, start, end, places or ())
    if choice == Choice():
        raise UsageError("name the dead letters to settle, by place (2:17), --code, --path, --from or --to")
    is_missing = note is None and not execute
    asked = operation.SettleRequest(
        choice,
        operator_name(by),
        None if is_missing else require_text("--note", note, LONGEST_NOTE),
    )
    plan = interruption.run(operation.settle(read_settings(), asked, execute=execute))
    if as_json:
        screen.print_json(plan)
        return
    again = screen.repeated_command_line(*(["--note", "TEXT"] if is_missing else []))
    screen.output().print(settle_screen(plan, again), soft_wrap=True)
