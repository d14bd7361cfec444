"""A redrive in the terminal: what it would do, and what it did."""

from collections.abc import Mapping, Sequence

from rich.console import Group as Lines
from rich.console import RenderableType
from rich.text import Text

from worker.operations.dead_letters.letter import Group
from worker.operations.dead_letters.terminal import groups_table
from worker.operations.redrive.claim import Difference, left_out_text
from worker.operations.redrive.forecast import Expected
from worker.operations.redrive.redrive import RedriveRehearsal, RedriveReport, RedriveRequest
from worker.operations.screen import shown, table


def rehearsal_screen(rehearsal: RedriveRehearsal, request: RedriveRequest) -> RenderableType:
    """The dead letters by group, what is left out, the edit and the steps; the command itself comes after."""
    selection = rehearsal.selection
    parts: list[RenderableType] = []
    if rehearsal.unfinished:
        parts.append(
            _line(
                f"{_letters(rehearsal.unfinished)} of a redrive that was interrupted or still runs: --execute"
                " first finds out what became of them, and frees those that were not sent."
            )
        )
    if selection.letters:
        parts += [groups_table(selection.groups), Text("")]
    parts.append(_line(f"{_letters(selection.letters)} would be sent to the input topic again."))
    if selection.left_out:
        parts.append(_line(f"Left out: {left_out_text(selection)}."))
    parts += [_line(f"{count}.") for count in selection.unreadable]
    if selection.changes:
        parts += [Text(""), _changes(selection.changes), Text("")]
    if rehearsal.expected:
        parts += [Text(""), _expected(rehearsal.expected), Text("")]
    if rehearsal.steps:
        more = " …" if sum(rehearsal.steps) < selection.letters else ""
        steps = ", ".join(f"{step:,}" for step in rehearsal.steps)
        parts.append(
            _line(
                f"Steps: {steps}{more}; it stops where more than {request.max_failures:.0%} of those sent so"
                " far have failed again."
            )
        )
    return Lines(*parts, _line("Nothing was changed. To do it:"))


def report_screen(report: RedriveReport) -> RenderableType:
    """What was sent, what came of it, and what failed again."""
    parts: list[RenderableType] = []
    if report.earlier.released or report.earlier.results:
        found = ", ".join(f"{n:,} {status}" for status, n in sorted(report.earlier.results.items()))
        released = f"{report.earlier.released:,} not sent, and free again" if report.earlier.released else ""
        parts.append(_line(f"Of an earlier redrive: {', '.join(filter(None, (found, released)))}."))
    parts.append(
        _line(f"{report.sent:,} of {_letters(report.selection.letters)} sent: {_results(report.results)}.")
    )
    if report.selection.left_out:
        parts.append(_line(f"Left out: {left_out_text(report.selection)}."))
    parts += [_line(f"{count}.") for count in report.selection.unreadable]
    if report.gone:
        parts.append(_line(f"Not sent, because deleted meanwhile (retention): {report.gone:,}."))
    if report.released:
        parts.append(_line(f"Not sent, and free for a later run: {report.released:,}."))
    if report.failures:
        parts += [Text(""), _failures(report.failures)]
    return Lines(*parts)


def stopped_text(report: RedriveReport) -> str:
    """Why it stopped, in one line."""
    failed, worst = report.results["failed"], report.failures[0]
    where = f" at {worst.path}" if worst.path else ""
    return (
        f"stopped: {failed:,} of {_letters(report.sent)} failed again, most with {worst.code}{where}:"
        f" {worst.message}; look at `order-worker dead-letters show {worst.sample}`"
    )


def _changes(changes: Sequence[Difference]) -> RenderableType:
    return table(
        ("letter", "field", "old", "new"),
        (
            (c.place, c.field or "(all of it)", "(none)" if c.old is None else _short(c.old), _short(c.new))
            for c in changes
        ),
    )


def _expected(expected: Sequence[Expected]) -> RenderableType:
    return table(
        ("a worker would make", "why", "letters", "like"),
        (
            (one.fate.replace("_", " "), one.why or "–", one.letters, _samples(one.samples, one.letters))
            for one in expected
        ),
        numbers=("letters",),
    )


def _samples(samples: Sequence[str], letters: int) -> str:
    return ", ".join(samples) + (" …" if letters > len(samples) else "")


def _failures(groups: Sequence[Group]) -> RenderableType:
    return table(
        ("failed with", "path", "letters", "why", "sample"),
        ((g.code, g.path or "–", g.count, g.message, g.sample) for g in groups),
        numbers=("letters",),
    )


def _results(results: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {status}" for status, count in sorted(results.items())) or "nothing"


def _letters(count: int) -> str:
    return f"{count:,} dead letter{'' if count == 1 else 's'}"


def _line(text: str) -> Text:
    return Text(shown(text))


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:60] + "…"
