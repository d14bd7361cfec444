"""Options that the `dead-letters` commands share: which dead letters, and which edits."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from worker.errors import UsageError

if TYPE_CHECKING:
    from worker.operations.dead_letters.letter import Choice, LetterPlace
    from worker.operations.redrive.edits import Edits

Code = Annotated[str | None, typer.Option("--code", help="Only those with this error code.")]
Path_ = Annotated[
    str | None,
    typer.Option("--path", help="Only those with this field path; * is any item: 'items.*.quantity'."),
]
From = Annotated[
    str | None, typer.Option("--from", metavar="TIME", help="Only those that failed then or later.")
]
WithSettled = Annotated[bool, typer.Option("--settled", help="Also those that are settled.")]
To = Annotated[str | None, typer.Option("--to", metavar="TIME", help="Only those that failed before then.")]


def choice_of(
    code: str | None,
    path: str | None,
    start: str | None,
    end: str | None,
    places: "list[str] | tuple[str, ...]" = (),
) -> "Choice":
    """The chosen dead letters; UsageError names a wrong code, time or place."""
    from contracts.events import DeadLetterCode
    from worker.kafka.offsets import parse_time
    from worker.operations.dead_letters.letter import UNMARKED, Choice

    codes = [*(known.value for known in DeadLetterCode), UNMARKED]
    if code is not None and code not in codes:
        raise UsageError(f"--code {code}: there is no such code; the codes are {', '.join(codes)}")
    if path is not None and not path.strip():
        raise UsageError("--path is empty: name a field, or leave it out")
    since = parse_time(start, "--from") if start is not None else None
    until = parse_time(end, "--to") if end is not None else None
    if since and until and since >= until:
        raise UsageError(f"--from {start} is not before --to {end}")
    return Choice(frozenset(map(place_of, places)), code, path, since, until)


def place_of(text: str) -> "LetterPlace":
    """From 2:17; UsageError otherwise."""
    from worker.operations.dead_letters.letter import parse_place

    place = parse_place(text)
    if place is None:
        raise UsageError(f"{text}: write a place as partition:offset, like 2:17")
    return place


def edits_of(texts: "list[str] | None", from_file: Path | None) -> "Edits":
    """The edits, from --set or the file; UsageError names what is wrong."""
    from worker.operations.redrive.edit_file import read_edits
    from worker.operations.redrive.edits import Edits
    from worker.operations.redrive.json_edit import ChangeError, parse_change

    if from_file is not None:
        return read_edits(from_file)
    try:
        changes = tuple(map(parse_change, texts or ()))
    except ChangeError as error:
        raise UsageError(f"--set: {error}") from None
    fields = [change.field for change in changes]
    if twice := next((field for field in fields if fields.count(field) > 1), None):
        raise UsageError(f"--set {twice} is given twice: which one is meant?")
    return Edits(changes)
