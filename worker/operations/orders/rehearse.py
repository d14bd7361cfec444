"""`orders reopen` without `--execute`: what the workers would decide for the orders today, read only."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from db.worker import reopenings
from worker.errors import CommandError
from worker.kafka.offsets import topic_reader
from worker.operations.check.check import judged, snapshot
from worker.operations.check.verdicts import Candidate, CheckFinding, ExpectedFate, Verdict
from worker.operations.orders.choose import Choice, Selection, left_out_text, pages
from worker.operations.orders.origins import Found, Origin, origins, read_origins
from worker.operations.orders.reopened import reopened
from worker.operations.redrive.canary import planned
from worker.operations.screen import progress
from worker.settings import Settings

MAX_FINDINGS: Final = 20


@dataclass(slots=True)
class ReopenRehearsal:
    """What a reopen would do now, and what the workers would decide."""

    selection: Selection = field(default_factory=Selection)
    fates: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    """of those that would be rejected again; a code counts once an order"""
    findings: list[CheckFinding] = field(default_factory=list)
    """the first that stand against an order, under its old id"""
    steps: list[int] = field(default_factory=list)
    unsent: int = 0
    """claimed by an earlier run, and not known to be sent"""

    def add(self, found: Sequence[Found], verdicts: Iterable[Verdict]) -> None:
        for one, (fate, findings) in zip(found, verdicts, strict=True):
            self.fates[fate.value] += 1
            if fate is ExpectedFate.REJECTED:
                self.reasons.update({finding.code for finding in findings})
            of_old = [replace(finding, order_id=one.origin.order_id) for finding in findings]
            self.findings += of_old[: MAX_FINDINGS - len(self.findings)]


async def rehearse(
    settings: Settings, choice: Choice, *, drop_prices: bool, quiet: bool = False
) -> ReopenRehearsal:
    """Choose as a reopen would, and decide as the workers would. Raises CommandError where nothing is chosen.

    One after the other, in the order in which they would be placed: stock that one takes is gone for those
    behind it.
    """
    topic, max_bytes = settings.order_placed_topic, settings.message_max_bytes
    rehearsal, taken = ReopenRehearsal(), Counter[int]()
    selection = rehearsal.selection
    async with topic_reader(settings, topic) as inputs, snapshot(settings, "orders reopen") as session:
        rehearsal.unsent = await reopenings.count_unsent(session, topic)
        with origins() as chosen:
            async for rows in pages(session, choice, topic, selection):
                chosen.add(rows)
            with progress("rehearsing", chosen.count, quiet=quiet) as bar:
                for portion in chosen.portions():
                    found = [one async for one in read_origins(inputs, topic, portion, max_bytes)]
                    forget_gone(selection, portion, found)
                    candidates = list(_candidates(found, max_bytes, drop_prices))
                    rehearsal.add(found, await judged(session, candidates, taken))
                    bar.advance(len(portion))
    require_some(selection, other_work=bool(rehearsal.unsent))
    rehearsal.steps = planned(selection.orders)
    return rehearsal


def forget_gone(selection: Selection, wanted: Iterable[Origin], found: Iterable[Found]) -> None:
    """What is no longer in the input topic is left out."""
    there = {one.origin.order_id for one in found}
    gone = [one.order_id for one in wanted if one.order_id not in there]
    selection.gone += gone
    selection.orders -= len(gone)


def require_some(selection: Selection, *, other_work: bool) -> None:
    """Raises CommandError where there is nothing to do at all."""
    if not selection.orders and not other_work:
        why = left_out_text(selection) or "no rejected order is like that; see `order-worker orders list`"
        raise CommandError(f"nothing to reopen: {why}")


def _candidates(found: Iterable[Found], max_bytes: int, drop_prices: bool) -> Iterator[Candidate | Verdict]:
    for number, (origin, record) in enumerate(found):
        new = reopened(record, origin.order_id, drop_prices=drop_prices, max_bytes=max_bytes)
        yield (
            Candidate(number, new.decoded.order, new.decoded.fingerprint, None)
            if new
            else Verdict(ExpectedFate.INVALID)
        )
