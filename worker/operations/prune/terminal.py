"""What `ledger prune` shows: one document for scripts, one screen for a person. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from rich.console import Console
from rich.text import Text

from db.worker.pruning import PruneState, StateCount
from worker.operations import screen
from worker.operations.prune.prune import Pruning
from worker.settings import Settings

_WORDS: Final = {
    PruneState.PRUNABLE: "to be pruned",
    PruneState.PRUNED: "pruned before",
    PruneState.YOUNGER: "kept: decided at that time or later",
    PruneState.IN_TOPIC: "kept: the record is still in the input topic",
    PruneState.NOT_COMMITTED: "kept: the group has not committed past the record for good",
    PruneState.WITHHELD: "kept: the outcome is withheld, or was a short while ago",
    PruneState.DELETED_EARLY: "kept: the record was deleted before it was committed (see `lag`)",
    PruneState.OTHER_TOPIC: "kept: from another topic, or from a partition that is no more",
}
_NOTHING: Final = StateCount(0, 0)
_MIB: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class PruneStateReport:
    """Rows of the ledger in the same state. `event_bytes`: the size of their events."""

    state: PruneState
    rows: int
    event_bytes: int


@dataclass(frozen=True, slots=True)
class PruneReport:
    """One pruning, rehearsed or done. `states` are as they were before; `pruned`: how many were pruned now.

    `retention_ms` is the input topic's, -1: for ever. `table_bytes`, `index_bytes`: the ledger's, at the end.
    """

    executed: bool
    group_id: str
    group_has_committed: bool
    topic: str
    before: datetime
    retention_ms: int
    states: list[PruneStateReport]
    pruned: int
    table_bytes: int
    index_bytes: int
    seconds: float
    next_command: str


def report(settings: Settings, found: Pruning) -> PruneReport:
    """The report of a pruning."""
    executed = found.pruned is not None
    size = found.size_after or found.size
    to_prune = found.states.get(PruneState.PRUNABLE, _NOTHING).rows
    return PruneReport(
        executed=executed,
        group_id=settings.group_id,
        group_has_committed=found.has_committed,
        topic=settings.order_placed_topic,
        before=found.asked.before,
        retention_ms=found.retention_ms,
        states=[PruneStateReport(state, *found.states[state]) for state in _WORDS if state in found.states],
        pruned=found.pruned or 0,
        table_bytes=size.table_bytes,
        index_bytes=size.index_bytes,
        seconds=found.seconds,
        next_command="" if executed or not to_prune else screen.repeated_command_line(),
    )


def show(console: Console, report: PruneReport) -> None:
    """A table of how the rows stand, and below it what was done or is to be done."""
    rows = [(one.rows, _mib(one.event_bytes), _WORDS[one.state]) for one in report.states]
    console.print(screen.table(("orders", "events", "state"), rows, numbers=("orders", "events")), Text())
    for sentence in _sentences(report):
        console.print(Text(sentence), soft_wrap=True)


def _sentences(report: PruneReport) -> Iterator[str]:
    size = f"{_mib(report.table_bytes)}, its index {_mib(report.index_bytes)}"
    if report.executed:
        rate = report.pruned / max(report.seconds, 1e-9)
        yield (
            f"{report.pruned:,} events pruned in {report.seconds:.1f} s ({rate:,.0f}/s)."
            " Each order stays decided, and the same order again is a duplicate."
        )
        yield f"The ledger has {size}."
        if report.pruned:
            yield "VACUUM order_outcomes lets new orders use the room; VACUUM FULL gives it back to the disk."
        return
    yield f"The ledger has {size}."
    if not report.group_has_committed:
        yield f"The group {report.group_id} has committed nothing: is that the name of the workers' group?"
    if not report.next_command:
        yield "There is nothing to prune."
        return
    yield "Their events would be deleted and could not be republished; the rows stay."
    yield f"Nothing was changed. To do it: {report.next_command}"


def _mib(count: int) -> str:
    return f"{count / _MIB:,.1f} MiB"
