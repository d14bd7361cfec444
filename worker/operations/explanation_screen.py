"""An explanation as a person reads it: one screen. Pure."""

from collections.abc import Iterable, Iterator, Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from contracts.events import Reason
from worker.operations.explanation import (
    DeadLetterRecord,
    Decision,
    Explanation,
    Facts,
    InputRecord,
    Line,
    OutcomeRecord,
    ProductNow,
    Standing,
    Unread,
)
from worker.operations.screen import shown, table

MOST_ROWS = 20  # of one table: what is left out is said, and stands in the JSON

_STANDINGS = {
    Standing.DECIDED: "the record that was decided",
    Standing.DUPLICATE: "duplicate: the same order again, nothing was done",
    Standing.CONFLICT: "conflict: another order under this id, a dead letter",
    Standing.INVALID: "no order",
    Standing.WAITING: "waits to be decided",
    Standing.PASSED_OVER: "the group is past it, and nothing became of it",
}


def explanation_screen(explanation: Explanation) -> Group:
    """The sentence first, then what it rests on."""
    facts = explanation.facts
    parts: list[RenderableType] = [Text(f"order {facts.order_id}"), Text(shown(explanation.summary), "bold")]
    for title, body in _sections(facts):
        parts += [Text(), Text(title, "bold"), body]
    ends = [*facts.notes, *_unread_note(facts.unread)]
    if ends:
        parts += [Text(), *(Text(shown(end), "dim") for end in ends)]
    return Group(*parts)


def _sections(facts: Facts) -> Iterator[tuple[str, RenderableType]]:
    if facts.inputs:
        records = [(r.place, r.time, _standing(r)) for r in facts.inputs]
        yield "Input", _table(("record", "time", "is"), records)
    if facts.decision:
        yield _decision_title(facts.decision), _decision(facts.decision, facts.products)
    elif facts.products:
        yield "Asked for", _undecided(facts)
    if facts.order:
        row = facts.order
        title = f"Rows: order {row.status}, total {row.total_amount:,}, stored {shown(row.created_at)}"
        if facts.decision and facts.decision.lines == row.lines:
            yield title, Text("  its items are those of the decision")
        else:
            items = [(str(i.product_id), i.quantity, i.unit_price) for i in row.lines]
            yield title, _table(("product", "quantity", "price"), items, ("product", "quantity", "price"))
    if facts.outcomes:
        told = [(o.place, o.time, _told(n, o, facts.decision)) for n, o in enumerate(facts.outcomes)]
        yield "Outcome records", _table(("record", "published", "is"), told)
    if facts.dead_letters:
        letters = [(d.place, d.failed_at or d.time, d.source, _because(d)) for d in facts.dead_letters]
        yield "Dead letters", _table(("record", "failed", "from", "because"), letters)


def _standing(record: InputRecord) -> str:
    return f"{_STANDINGS[record.standing]}{': ' if record.why else ''}{record.why}"


def _because(letter: DeadLetterRecord) -> str:
    return f"{letter.path}{': ' if letter.path else ''}{letter.message} ({letter.code})"


def _told(number: int, record: OutcomeRecord, decision: Decision | None) -> str:
    what = f"order-{record.outcome}"
    if record.republished:
        what += ", republished"
    elif number:
        what += ", told again"
    if decision is None:
        return f"{what}, and not in the ledger"
    return what if record.as_stored else f"{what}, and not as the ledger has it"


def _decision_title(decision: Decision) -> str:
    if decision.total_amount is not None:
        return f"Decision: {decision.outcome}, total {decision.total_amount:,}"
    retry = ", may be tried again under a new id" if decision.retryable else ""
    return f"Decision: {decision.outcome}{retry}"


def _decision(decision: Decision, products: Sequence[ProductNow]) -> RenderableType:
    now = {p.product_id: (p.price, p.stock, p.taken_later) for p in products}
    head = _SOLD if decision.lines else _REFUSED
    rows = [
        *(
            (str(i.product_id), i.quantity, i.unit_price, *now.get(i.product_id, _UNKNOWN))
            for i in decision.lines
        ),
        *((*_reason(r), *now.get(r.product_id or 0, _UNKNOWN)[1:]) for r in decision.reasons),
    ]
    # Without the columns in which nothing stands: few rejections have more than one kind of reason.
    kept = [n for n in range(len(head)) if any(row[n] is not None for row in rows)]
    told = [head[n] for n in kept]
    numbers = [name for name in told if name != "reason"]
    times = (
        f"  decided {shown(decision.decided_at)}, placed {shown(decision.placed_at)}, user {decision.user_id}"
    )
    return Group(Text(times), _table(told, [[row[n] for n in kept] for row in rows], numbers), _NOT_KEPT)


_UNKNOWN = (None, None, None)
_SOLD = ("product", "quantity", "price", "price now", "stock now", "taken later")
_REFUSED = (
    *("reason", "product", "requested", "available", "expected", "in force"),
    *("stock now", "taken later"),
)
_NOT_KEPT = Text(
    "  Stock is kept with a decision only where it was short. Now: at this moment;\n"
    "  taken later: by orders decided since then and not cancelled.",
    "dim",
)


def _reason(reason: Reason) -> tuple[object, ...]:
    product = None if reason.product_id is None else str(reason.product_id)
    prices = (reason.expected_unit_price, reason.current_unit_price)
    return reason.code.value, product, reason.requested, reason.available, *prices


def _undecided(facts: Facts) -> RenderableType:
    """Of the first record that is an order: what it asks for, and what there is."""
    lines: Sequence[Line] = next((r.lines for r in facts.inputs if r.lines), ())
    now = {product.product_id: (product.price, product.stock) for product in facts.products}
    head = ("product", "quantity", "price seen", "price now", "stock now")
    rows = [
        (str(i.product_id), i.quantity, i.unit_price, *now.get(i.product_id, (None, None))) for i in lines
    ]
    return _table(head, rows, head)


def _table(
    head: Sequence[str], rows: Sequence[Sequence[object]], numbers: Sequence[str] = ()
) -> RenderableType:
    grid = table(head, rows[:MOST_ROWS], numbers=numbers)
    if len(rows) <= MOST_ROWS:
        return grid
    return Group(grid, Text(f"… and {len(rows) - MOST_ROWS:,} more: --json shows all", "dim"))


def _unread_note(unread: Iterable[Unread]) -> list[str]:
    """By topic: a list of partitions would be longer than all the rest."""
    topics: dict[str, tuple[int, int]] = {}
    for one in unread:
        partitions, offsets = topics.get(one.topic, (0, 0))
        topics[one.topic] = partitions + 1, offsets + one.end - one.start
    if not topics:
        return []
    told = ", ".join(f"{topic} ({offsets:,} offsets)" for topic, (_, offsets) in topics.items())
    return [f"Not looked at: {told}. `--scan all` reads everything; --json names the offsets."]
