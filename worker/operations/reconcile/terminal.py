"""How a reconciliation is shown: to a person, and as one JSON document of any length."""

import sys
from collections.abc import Iterable
from dataclasses import asdict
from shutil import copyfileobj
from tempfile import SpooledTemporaryFile
from typing import Final

from rich.console import RenderableType
from rich.padding import Padding
from rich.text import Text

from worker.operations.reconcile.discrepancies import KINDS, REPAIRED, Discrepancy
from worker.operations.reconcile.reconcile import Reconciled, Reconciliation
from worker.operations.screen import json_text, output, shown, table, versioned
from worker.operations.skip.sentences import deleted_text, sentence
from worker.operations.temporary_files import temporary_files

_IN_MEMORY_BYTES: Final = 4 * 1024 * 1024
_RESULT_NAMES: Final = {
    "confirmed": "confirmed",
    "rejected": "rejected",
    "duplicate": "duplicates of a decided order",
    "dead_letter": "dead letters",
}
_REMARKS: Final = {
    "republished": "published again on purpose (republished)",
    "letter_again": "dead letters written again, by a rewind",
    "letter_of_nothing": "dead letters that name no record of this topic",
    "order_deleted": "confirmed orders that the shop has deleted since (the books of their products add up)",
    "earlier_topic": "ledger rows of an earlier topic of this name",
    "input_deleted": "not judged: decided from records that are deleted by now",
    "outcome_deleted": (
        "not judged: the outcome may be deleted or compacted by now, or lie where nobody can unpack it"
    ),
    "letter_deleted": (
        "not judged: the dead letter may be deleted or compacted by now, or lie where nobody can unpack it"
    ),
    "input_unreadable": "not judged: decided from records that nobody can unpack by now",
    "skipped": "skipped by an operator, while nobody could unpack them",
}


async def show(found: Reconciled, limit: int, *, asked_to_repair: bool) -> None:
    """For a person: counts, then the first discrepancies with their fixes."""
    console = output()
    for part in _summary(found.summary):
        console.print(part)
    shown_rows = 0
    async for one in found.discrepancies(limit):
        shown_rows += 1
        for part in _entry(one):
            console.print(part)
    total = sum(found.summary.discrepancies.values())
    if shown_rows < total:
        console.print(f"… and {total - shown_rows:,} more: --limit {total}, or --json for all of them")
    if total:
        console.print()
    console.print(last_words(found.summary, asked_to_repair=asked_to_repair))


def last_words(summary: Reconciliation, *, asked_to_repair: bool) -> str:
    """The verdict in one sentence."""
    total = sum(summary.discrepancies.values())
    if not total and not summary.records:
        return "no record of this window is committed: there is nothing to judge but the stock, which adds up"
    if not total:
        gone = "what was skipped or deleted" if summary.skips or summary.deleted else ""
        unread = "what cannot be unpacked" if summary.unreadable else ""
        but = " but " * bool(gone or unread) + " and ".join(filter(None, (gone, unread)))
        judged = _number(summary.records - summary.remarks.get("skipped", 0), "record")
        return f"nothing is missing{but}: each of {judged} has exactly one result"
    repairable = summary.discrepancies.get(REPAIRED, 0)
    left = f"{_number(summary.left, 'discrepancy')} left"
    if summary.repaired is not None:
        return f"{_number(summary.repaired, 'outcome')} published; {left}"
    if repairable and asked_to_repair:
        return f"with --execute {_number(repairable, 'outcome')} would be published; nothing was changed"
    return left.removesuffix(" left")


async def write_json(found: Reconciled) -> None:
    """One document, whole or not at all, however many discrepancies there are."""
    head = json_text(versioned({**asdict(found.summary), "left": found.summary.left}), indent=2)
    # Into a temporary file first, so that no half document is printed if PostgreSQL fails.
    with (
        temporary_files(),
        SpooledTemporaryFile(_IN_MEMORY_BYTES, "w+", encoding="utf-8") as document,
    ):
        document.write(head.removesuffix("\n}") + ',\n  "found": [')
        separator = "\n    "
        async for one in found.discrepancies():
            document.write(separator + json_text(one))
            separator = ",\n    "
        document.write("\n  ]\n}\n")
        document.seek(0)
        copyfileobj(document, sys.stdout)


def _summary(summary: Reconciliation) -> Iterable[RenderableType]:
    began = f"from {shown(summary.start)}" if summary.start else "from the first record"
    ended = f"to {shown(summary.end)}" if summary.end else "to the committed offsets"
    yield f"{summary.topic}, group {summary.group_id}, {began} {ended}"
    yield ""
    rows = [(summary.results[name], text) for name, text in _RESULT_NAMES.items()]
    rows += [(summary.remarks[name], text) for name, text in _REMARKS.items() if name in summary.remarks]
    rows += _numbers_of_undecided(summary)
    if summary.waiting:
        rows.append((summary.waiting, "not judged: not committed yet"))
    yield table(["", f"of {_number(summary.records, 'record')}"], rows, numbers=[""])
    yield ""
    undecided = list(_undecided(summary))
    if undecided:
        yield from map(Text, undecided)
        yield ""
    if summary.discrepancies:
        yield table(
            ["", "discrepancy", "is"],
            [(number, code, KINDS[code].meaning) for code, number in summary.discrepancies.items()],
            numbers=[""],
        )
        yield ""


def _numbers_of_undecided(summary: Reconciliation) -> Iterable[tuple[int, str]]:
    """Offsets: how many records they held, nobody knows."""
    known = [(skip.kind, skip.to_offset - skip.from_offset) for skip in summary.skips]
    known += [("deleted", gone.to_offset - gone.from_offset) for gone in summary.deleted]
    for kind, text in (
        ("skipped", "offsets beside these that an operator skipped"),
        ("deleted", "offsets beside these that were deleted before they were decided"),
    ):
        if offsets := sum(number for of, number in known if of == kind):
            yield offsets, text


def _undecided(summary: Reconciliation) -> Iterable[str]:
    """What nobody decides, span by span: the orders that lay there are to be sent again."""
    for skip in summary.skips:
        yield f"{summary.topic}-{skip.partition}: {sentence(skip)}"
    for gone in summary.deleted:
        yield f"{summary.topic}-{gone.partition}: {deleted_text(gone.from_offset, gone.to_offset)}"
    for count in summary.unreadable:
        yield shown(f"{count}.")


def _entry(one: Discrepancy) -> Iterable[RenderableType]:
    subject = (
        f"order {one.order_id}" if one.order_id else f"product {one.product_id}" if one.product_id else ""
    )
    head = "  ".join(part for part in (one.place, subject) if part)
    yield Text.assemble((one.code, "bold"), "  ", shown(head))
    yield Padding(Text(shown(one.what)), (0, 0, 0, 2))
    yield Padding(Text(f"fix: {shown(one.fix)}"), (0, 0, 0, 2))


def _number(count: int, noun: str) -> str:
    plural = noun[:-1] + "ies" if noun.endswith("y") else noun + "s"
    return f"{count:,} {noun if count == 1 else plural}"
