"""What each kind of discrepancy means, and what is done about it. Pure."""

from dataclasses import dataclass
from typing import Final
from uuid import UUID

from db.reconciliation.tables import Finding

REPAIRED: Final = "not_told"
"""the one that `--repair` puts right"""


@dataclass(frozen=True, slots=True)
class Kind:
    """What is wrong, and the fix, in which {topic}, {partition}, {offset} and {order} are filled in."""

    meaning: str
    fix: str


_REPLAY: Final = (
    "stop the workers, `order-worker replay --topic {topic}:{partition} --to-offset {offset} --execute`,"
    " start them: {then}"
)
_EXPLAIN: Final = "`order-worker explain {order}`"

KINDS: Final = {
    "undecided": Kind(
        "a sound order without decision or dead letter",
        _REPLAY.replace("{then}", "it is decided then, and what is announced stays silent"),
    ),
    "invalid_and_lost": Kind(
        "no order, and no dead letter", _REPLAY.replace("{then}", "its dead letter is written then")
    ),
    "conflict_and_lost": Kind(
        "another order's id, and no dead letter", _REPLAY.replace("{then}", "its dead letter is written then")
    ),
    "unreadable_and_lost": Kind(
        "nobody can unpack it, and it was not skipped",
        "mend the disk or fetch the records from a replica; else ask upstream to send again what lay there:"
        " what is decided already stays decided",
    ),
    "blocked_by_unreadable": Kind(
        "nobody can unpack what comes next, and the orders behind it wait",
        "mend the disk, or skip it: `order-worker skip {topic}:{partition}:{offset}` says what goes with it",
    ),
    "decided_and_dead": Kind(
        "decided, and a dead letter as well",
        f"the decision stands, do not redrive the dead letter; {_EXPLAIN} shows both",
    ),
    "fingerprint_differs": Kind(
        "the record is not what was decided",
        f"the row or the record was changed by hand: {_EXPLAIN} shows both; put back the one that is wrong",
    ),
    "source_differs": Kind(
        "the ledger names a record that is not there, or another order's",
        f"the row was changed by hand, or the topic is a new one of the same name: {_EXPLAIN};"
        " the decision stands",
    ),
    "not_told": Kind(
        "decided, and its outcome never announced", "`order-worker reconcile --repair --execute` announces it"
    ),
    "outcome_withheld": Kind(
        "decided, and its outcome not published, because its topic refuses it",
        "do what is said there: a worker publishes it by itself, once its topic takes it; --repair does not",
    ),
    "told_twice": Kind(
        "announced more than once",
        "none where subscribers drop repeats by ce_id; it comes of offsets moved back with Kafka's own tool"
        " (`order-worker replay` is silent), or of offsets that the broker forgot",
    ),
    "event_differs": Kind(
        "announced with other bytes than the ledger has",
        "find out who else writes to {topic}, and take the right away; then tell subscribers the stored one:"
        " `order-worker republish --order-id {order} --execute`",
    ),
    "wrong_topic": Kind(
        "announced in the topic of the other outcome",
        "find out who else writes to {topic}, and take the right away; tell its subscribers that it does not"
        " hold",
    ),
    "outcome_without_row": Kind(
        "announced, and never decided",
        "find out who else writes to {topic}, or who deletes from the ledger; tell subscribers that it does"
        " not hold",
    ),
    "order_missing": Kind(
        "confirmed, and there is no order",
        f"write order and items again from the event that {_EXPLAIN} shows, or give the stock back",
    ),
    "order_of_rejection": Kind(
        "rejected, and there is an order",
        "`db.orders.delete_order` takes it away and gives its stock back",
    ),
    "order_differs": Kind(
        "the order is not what was announced",
        f"it was changed by hand: the event that {_EXPLAIN} shows is what the buyer was told",
    ),
    "items_differ": Kind(
        "the items are not what was announced",
        f"they were changed by hand: the event that {_EXPLAIN} shows is what the buyer was told",
    ),
    "stock_differs": Kind(
        "received − sold is not the stock",
        "somebody changed stock, items or orders by hand: count the shelf, then set stock_quantity and"
        " received_quantity of product {product}",
    ),
}


@dataclass(frozen=True, slots=True)
class Discrepancy:
    """One, as it is shown. `place` is topic-partition@offset; `repairable` by `--repair`."""

    code: str
    place: str | None
    order_id: UUID | None
    product_id: int | None
    what: str
    fix: str
    repairable: bool


def discrepancy(finding: Finding) -> Discrepancy:
    """A finding, with its fix."""
    kind = KINDS[finding.code]
    return Discrepancy(
        code=finding.code,
        place=f"{finding.topic}-{finding.partition}@{finding.offset}" if finding.topic else None,
        order_id=finding.order_id,
        product_id=finding.product_id,
        what=finding.detail,
        fix=kind.fix.format(
            topic=finding.topic,
            partition=finding.partition,
            offset=finding.offset,
            order=finding.order_id or "ORDER_ID",
            product=finding.product_id,
        ),
        repairable=finding.code == REPAIRED,
    )
