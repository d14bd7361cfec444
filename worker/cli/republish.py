"""`republish`: stored outcomes into Kafka, once more."""

import re
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Final

import typer

from worker import interruption
from worker.cli.options import AsJson, Execute, example, finite, group
from worker.errors import UsageError

if TYPE_CHECKING:
    from db.worker.ledger import OutcomeFilter
    from worker.operations.republish.republish import Preview, Republished
    from worker.settings import Settings

commands = group()

_OFFSETS: Final = re.compile(r"([0-9]{1,18})(?:-([0-9]{1,18}))?")


class SelectionKind(StrEnum):
    """As `db.statuses.Outcome`, which would load SQLAlchemy."""

    CONFIRMED = "confirmed"
    REJECTED = "rejected"


@commands.command(
    epilog=example(
        "order-worker republish --order-id 0b6f5c1e-5d0e-4c1e-9d0c-6a4a0c1d2e3f --execute",
        "order-worker republish --from 2026-11-23T10:00:00Z --to 2026-11-23T12:00:00Z --rate 500 --execute",
        "order-worker republish --partition 3 --offsets 1000-1999 --outcome rejected",
    )
)
def republish(
    order_id: Annotated[
        list[str] | None, typer.Option(metavar="ID", help="Of this order; may be given several times.")
    ] = None,
    from_: Annotated[
        str | None, typer.Option("--from", metavar="TIME", help="Decided then or later: 2026-11-23T10:00:00Z")
    ] = None,
    to: Annotated[str | None, typer.Option(metavar="TIME", help="Decided before then.")] = None,
    partition: Annotated[
        int | None,
        typer.Option(min=0, max=2**31 - 1, metavar="N", help="Of orders that came in this input partition."),
    ] = None,
    offsets: Annotated[
        str | None,
        typer.Option(metavar="A-B", help="With --partition: of the records with offsets A to B, B included."),
    ] = None,
    outcome: Annotated[SelectionKind | None, typer.Option(help="Only these.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every outcome there is.")] = False,
    rate: Annotated[
        float | None,
        typer.Option(
            min=0.001, callback=finite, help="Outcomes a second; default: as fast as Kafka takes them."
        ),
    ] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Once more, if this selection was published to its end before.")
    ] = False,
    execute: Execute = False,
    as_json: AsJson = False,
) -> None:
    """Publish stored outcomes again: same bytes, same ce_id, same topic, and the header "republished: true".

    An outcome has to meet all filters. What is decided after the first start is left out.

    The order's headers correlation_id and traceparent are not in the ledger, and therefore missing.

    If it is stopped or killed, the same command continues there: nothing is left out or sent twice.

    A second run of the same filters ends the first, and continues there.

    Kafka keeps how far it came as the offset of a group …republish…: a week after the last, by default.
    """
    from worker.operations.screen import print_json
    from worker.settings import read_settings

    wanted = _wanted(order_id or [], from_, to, partition, offsets, outcome, everything)
    settings = read_settings()
    if partition is not None:
        wanted = replace(wanted, source_topic=settings.order_placed_topic)
    if execute:
        done = _execute(settings, wanted, rate, again, as_json)
        print_json(done) if as_json else typer.echo(_sentence(done))
        return
    from worker.operations.republish.republish import preview

    seen = interruption.run(preview(settings, wanted))
    print_json(seen) if as_json else _show(seen)


def _execute(
    settings: "Settings", wanted: "OutcomeFilter", rate: float | None, again: bool, quiet: bool
) -> "Republished":
    from worker.operations.republish import republish

    try:
        return interruption.run(republish.republish(settings, wanted, rate=rate, again=again, quiet=quiet))
    except KeyboardInterrupt:
        typer.echo("stopped: the same command continues where this one came to", err=True)
        raise


def _require_order(wanted: "OutcomeFilter", from_: str | None, to: str | None) -> None:
    if wanted.decided_from and wanted.decided_before and wanted.decided_from >= wanted.decided_before:
        raise UsageError(f"--from {from_} is not before --to {to}")


def _wanted(
    order_ids: list[str],
    from_: str | None,
    to: str | None,
    partition: int | None,
    offsets: str | None,
    outcome: SelectionKind | None,
    everything: bool,
) -> "OutcomeFilter":
    from db.statuses import Outcome
    from db.worker.ledger import OutcomeFilter
    from worker.kafka.offsets import parse_time, read_order_id

    if offsets is not None and partition is None:
        raise UsageError("--offsets are those of one partition: give --partition as well")
    first, last = _span(offsets) if offsets is not None else (None, None)
    wanted = OutcomeFilter(
        order_ids=tuple(read_order_id(text, "--order-id") for text in dict.fromkeys(order_ids)),
        decided_from=parse_time(from_, "--from") if from_ is not None else None,
        decided_before=parse_time(to, "--to") if to is not None else None,
        source_partition=partition,
        first_offset=first,
        last_offset=last,
        outcome=Outcome(outcome.value) if outcome else None,
    )
    _require_order(wanted, from_, to)
    if everything != (wanted == OutcomeFilter()):
        raise UsageError(
            "--all is every outcome: give it alone"
            if everything
            else "which outcomes? Give --order-id, --from, --to, --partition or --outcome, or --all"
        )
    return wanted


def _span(text: str) -> tuple[int, int]:
    found = _OFFSETS.fullmatch(text)
    first, last = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
    if first > last:
        raise UsageError(f"--offsets {text}: write the first and the last offset, like 1000-1999, or one")
    return first, last


def _show(seen: "Preview") -> None:
    from worker.operations.screen import output, table

    kinds, places = Counter[tuple[str, str]](), dict[tuple[str, int], Counter[str]]()
    for one in seen.portions:
        kinds[one.outcome, one.topic] += one.outcomes
        places.setdefault((one.source_topic, one.source_partition), Counter())[one.outcome] += one.outcomes
    of_kind = [(kind, count, topic) for (kind, topic), count in sorted(kinds.items())]
    of_place = [
        (*place, n[SelectionKind.CONFIRMED], n[SelectionKind.REJECTED]) for place, n in places.items()
    ]
    ends = [
        (name, end.decided_at, end.order_id) for name, end in (("first", seen.first), ("last", seen.last))
    ]
    head = ("orders came in", "partition", "confirmed", "rejected")
    console = output()
    console.print(table(("outcome", "outcomes", "goes to"), of_kind, numbers=("outcomes",)), "")
    console.print(table(head, of_place, numbers=head[1:]), "")
    console.print(table(("", "decided", "order"), ends), "")
    for line in _remarks(seen):
        typer.echo(line)


def _remarks(seen: "Preview") -> Iterator[str]:
    from worker.operations.screen import repeated_command_line, shown

    yield f"{seen.total:,} selected, out of what was decided up to {shown(seen.decided_by)}."
    if seen.pruned:
        yield f"Their events were pruned (`ledger prune`), and they are left out: {seen.pruned:,}."
    if seen.undecided:
        yield f"Not decided, and left out: {', '.join(map(str, seen.undecided))}."
    before, flags = seen.progress, []
    if before and before.finished_at:
        yield f"An earlier run published this selection to its end at {shown(before.finished_at)}."
        flags = [flag for flag in ("--again",) if flag not in sys.argv]
    elif before:
        yield f"An earlier run came to {before.done:,} of {before.total:,}; this one continues there."
    yield f"Nothing was sent. To publish them: {repeated_command_line(*flags)}"


def _sentence(done: "Republished") -> str:
    from worker.operations.screen import shown

    progress, count = done.progress, done.confirmed + done.rejected
    if done.finished_before:
        parts = [
            f"nothing to do: all {progress.done:,}, out of those decided by {shown(progress.frozen_at)}, were"
            f" published again by {shown(progress.finished_at)}; add --again to do it once more"
        ]
    else:
        parts = [
            f"{count:,} published again in {done.seconds:.2f} s ({count / max(done.seconds, 1e-9):,.0f}/s):"
            f" {done.confirmed:,} confirmed, {done.rejected:,} rejected"
        ]
        if progress.done > count:
            parts.append(f"with earlier runs {progress.done:,}")
    if progress.done < progress.total:
        left = progress.total - progress.done
        parts.append(f"left out, because their events were pruned meanwhile (`ledger prune`): {left:,}")
    if done.undecided:
        parts.append(f"not decided, and left out: {', '.join(map(str, done.undecided))}")
    return "; ".join(parts)
