"""The facts behind an explanation as titles and tables, for the terminal and the operator's page. Pure."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from contracts.events import Reason
from worker.operations.explain.order_facts import (
    DeadLetterRecord,
    Decision,
    Facts,
    InputRecord,
    Line,
    OutcomeRecord,
    ProductNow,
    RecordStanding,
    Unread,
)
from worker.operations.screen import shown


@dataclass(frozen=True, slots=True)
class Section:
    """A title, and below it a line, a table and a note, each where there is one."""

    title: str
    lead: str = ""
    head: Sequence[str] = ()
    rows: Sequence[Sequence[object]] = ()
    numbers: Sequence[str] = ()
    note: str = ""


_STANDINGS: Final = {
    RecordStanding.DECIDED: "the record that was decided",
    RecordStanding.DUPLICATE: "duplicate: the same order again, nothing was done",
    RecordStanding.CONFLICT: "conflict: another order under this id, a dead letter",
    RecordStanding.INVALID: "no order",
    RecordStanding.WAITING: "waits to be decided",
    RecordStanding.PASSED_OVER: "the group has committed past it, and it has no result",
}


def sections(facts: Facts) -> Iterator[Section]:
    """The known facts, in the order in which they happened."""
    if facts.inputs:
        records = [(r.place, r.time, _standing(r)) for r in facts.inputs]
        yield Section("Input", head=("record", "time", "is"), rows=records)
    if facts.decision:
        yield _decision(facts.decision, facts.products)
    elif facts.products:
        yield _undecided(facts)
    if facts.order:
        yield _stored(facts)
    if facts.outcomes:
        first = next(iter(facts.publications), None)
        outcomes = [
            (o.place, o.time, _description(o, o is not first, facts.decision)) for o in facts.outcomes
        ]
        yield Section("Outcome records", head=("record", "published", "is"), rows=outcomes)
    if facts.dead_letters:
        letters = [(d.place, d.failed_at or d.time, d.source, _because(d)) for d in facts.dead_letters]
        yield Section("Dead letters", head=("record", "failed", "from", "because"), rows=letters)


def _stored(facts: Facts) -> Section:
    row = facts.order
    assert row is not None
    title = f"Rows: order {row.status}, total {row.total_amount:,}, stored {shown(row.created_at)}"
    if facts.decision and facts.decision.lines == row.lines:
        return Section(title, "its items are those of the decision")
    items = [(str(i.product_id), i.quantity, i.unit_price) for i in row.lines]
    head = ("product", "quantity", "price")
    return Section(title, head=head, rows=items, numbers=head)


def _standing(record: InputRecord) -> str:
    return f"{_STANDINGS[record.standing]}{': ' if record.why else ''}{record.why}"


def _because(letter: DeadLetterRecord) -> str:
    return f"{letter.path}{': ' if letter.path else ''}{letter.message} ({letter.code})"


def _description(record: OutcomeRecord, is_repeated: bool, decision: Decision | None) -> str:
    if record.tombstone:
        return "no outcome but a tombstone: it has no value, and compaction deletes what is before it"
    what = f"order-{record.outcome}"
    if record.republished:
        what += ", republished"
    elif is_repeated:
        what += ", published again"
    if decision is None:
        return f"{what}, and not in the ledger"
    return what if record.as_stored else f"{what}, and not as the ledger has it"


def _decision_title(decision: Decision) -> str:
    if decision.total_amount is not None:
        return f"Decision: {decision.outcome}, total {decision.total_amount:,}"
    retry = ", may be tried again under a new id" if decision.retryable else ""
    return f"Decision: {decision.outcome}{retry}"


def _decision(decision: Decision, products: Sequence[ProductNow]) -> Section:
    head = _SOLD if decision.lines else _REFUSED
    rows = _decision_rows(decision, products)
    # Without the columns in which nothing stands: few rejections have more than one kind of reason.
    kept = [n for n in range(len(head)) if any(row[n] is not None for row in rows)]
    titles = [head[n] for n in kept]
    if decision.pruned:
        lead = f"decided {shown(decision.decided_at)}; its event was pruned (`ledger prune`)"
        return Section(_decision_title(decision), lead)
    times = (
        f"decided {shown(decision.decided_at)}, placed {shown(decision.placed_at)}, user {decision.user_id}"
    )
    return Section(
        _decision_title(decision),
        times,
        titles,
        [[row[n] for n in kept] for row in rows],
        [name for name in titles if name != "reason"],
        _NOT_KEPT,
    )


def _decision_rows(decision: Decision, products: Sequence[ProductNow]) -> list[tuple[object, ...]]:
    now = {p.product_id: (p.price, p.stock, p.taken_later) for p in products}
    return [
        *(
            (str(i.product_id), i.quantity, i.unit_price, *now.get(i.product_id, _UNKNOWN))
            for i in decision.lines
        ),
        *((*_reason(r), *now.get(r.product_id or 0, _UNKNOWN)[1:]) for r in decision.reasons),
    ]


_UNKNOWN: Final = (None, None, None)
_SOLD: Final = ("product", "quantity", "price", "price now", "stock now", "taken later")
_REFUSED: Final = (
    *("reason", "product", "requested", "available", "expected", "in force"),
    *("stock now", "taken later"),
)
_NOT_KEPT: Final = (
    "Stock is kept with a decision only where it was short. Now: at this moment; taken later: by orders"
    " decided since then and not cancelled."
)


def _reason(reason: Reason) -> tuple[object, ...]:
    product = None if reason.product_id is None else str(reason.product_id)
    prices = (reason.expected_unit_price, reason.current_unit_price)
    return str(reason.code), product, reason.requested, reason.available, *prices


def _undecided(facts: Facts) -> Section:
    """Of the first record that is an order: what it asks for, and what there is."""
    lines: Sequence[Line] = next((r.lines for r in facts.inputs if r.lines), ())
    now = {product.product_id: (product.price, product.stock) for product in facts.products}
    head = ("product", "quantity", "price seen", "price now", "stock now")
    rows = [
        (str(i.product_id), i.quantity, i.unit_price, *now.get(i.product_id, (None, None))) for i in lines
    ]
    return Section("Asked for", head=head, rows=rows, numbers=head)


def not_looked_at(unread: Iterable[Unread]) -> str:
    """By topic: a list of partitions would be longer than all the rest. Empty where all was read."""
    topics: dict[str, tuple[int, int]] = {}
    for one in unread:
        partitions, offsets = topics.get(one.topic, (0, 0))
        topics[one.topic] = partitions + 1, offsets + one.end - one.start
    names = ", ".join(f"{topic} ({offsets:,} offsets)" for topic, (_, offsets) in topics.items())
    return f"Not looked at: {names}." if names else ""
