"""`orders list` and `orders reopen` in the terminal."""

from collections.abc import Iterator, Mapping, Sequence

from rich.console import Group as Lines
from rich.console import RenderableType
from rich.text import Text

from contracts.events import ReasonCode
from worker.operations.check.verdicts import ExpectedFate
from worker.operations.orders.choose import left_out_text
from worker.operations.orders.listing import ListedOrder
from worker.operations.orders.rehearse import ReopenRehearsal
from worker.operations.orders.reopen import ReopenReport, ReopenRequest
from worker.operations.screen import shown, table

_FATES = {
    ExpectedFate.CONFIRMED: "confirmed",
    ExpectedFate.REJECTED: "rejected again",
    ExpectedFate.CONFLICT: "a dead letter: its new id is taken",
    ExpectedFate.INVALID: "a dead letter: not an order by today's limits",
}


def orders_table(orders: Sequence[ListedOrder]) -> RenderableType:
    """A row each; the last column only where one was placed again."""
    head = ["order", "outcome", "reasons", "user", "decided"]
    again = any(one.reopened_as for one in orders)
    rows = (
        (
            one.order_id,
            one.outcome,
            "pruned" if one.pruned else ", ".join(sorted({str(r["code"]) for r in one.reasons})) or None,
            None if one.user_id is None else str(one.user_id),
            one.decided_at,
            one.reopened_as,
        )
        for one in orders
    )
    return table(head + ["placed again as"] * again, (row[: 5 + again] for row in rows), numbers=("user",))


def rehearsal_screen(rehearsal: ReopenRehearsal, request: ReopenRequest) -> RenderableType:
    """What would become of them, what is left out, and the ramp; behind it comes the line that does it."""
    parts: list[RenderableType] = []
    if rehearsal.unsent:
        parts.append(
            _line(
                f"{_orders(rehearsal.unsent)} of a reopen that was interrupted or still runs: --execute first"
                " finds out which were sent, and frees the others."
            )
        )
    if rehearsal.fates:
        fates = [(_FATES.get(ExpectedFate(fate), fate), n) for fate, n in rehearsal.fates.most_common()]
        parts += [table(("would be", "orders"), fates, numbers=("orders",)), Text("")]
    if rehearsal.findings:
        findings = [(f.order_id, f.code, f.message) for f in rehearsal.findings]
        parts += [table(("order", "because of", "today"), findings), Text("")]
    parts += [_line(text) for text in _sentences(rehearsal, request)]
    return Lines(*parts, _line("Nothing was changed. To do it:"))


def _sentences(rehearsal: ReopenRehearsal, request: ReopenRequest) -> Iterator[str]:
    selection = rehearsal.selection
    prices = ", without the prices that the buyers saw" if request.drop_prices else ""
    yield f"{_orders(selection.orders)} would be placed again under new ids{prices}."
    if rehearsal.reasons:
        yield f"Rejected again because of: {_counts(rehearsal.reasons)}."
    if rehearsal.reasons[ReasonCode.PRICE_CHANGED] and not request.drop_prices:
        yield "--drop-prices leaves out the prices that the buyers saw: they pay what is in force then."
    if left_out := left_out_text(selection):
        yield f"Left out: {left_out}."
    if rehearsal.steps:
        more = " …" if sum(rehearsal.steps) < selection.orders else ""
        steps = ", ".join(f"{step:,}" for step in rehearsal.steps)
        yield (
            f"Steps: {steps}{more}; it stops where more than {request.max_failures:.0%} of those sent so far"
            " were not confirmed."
        )


def report_screen(report: ReopenReport) -> RenderableType:
    """What was sent, and what came of it."""
    parts: list[RenderableType] = []
    if report.earlier.sent or report.earlier.released:
        parts.append(
            _line(
                f"Of an earlier reopen: {report.earlier.sent:,} had been sent,"
                f" {report.earlier.released:,} had not, and were free again."
            )
        )
    chosen = _orders(report.selection.orders)
    parts.append(_line(f"{report.sent:,} of {chosen} placed again: {_counts(report.results) or 'nothing'}."))
    if report.reasons:
        parts.append(_line(f"Rejected again because of: {_counts(report.reasons)}."))
    if left_out := left_out_text(report.selection):
        parts.append(_line(f"Left out: {left_out}."))
    if report.released:
        parts.append(_line(f"Not sent, and free for a later run: {report.released:,}."))
    return Lines(*parts)


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in sorted(counts.items(), key=lambda one: -one[1]))


def _orders(count: int) -> str:
    return f"{count:,} rejected order{'' if count == 1 else 's'}"


def _line(text: str) -> Text:
    return Text(shown(text))
