"""The kinds of discrepancies: what each means, and how to fix it. Pure."""

from dataclasses import dataclass
from typing import Final
from uuid import UUID

from db.reconciliation.tables import Finding

REPAIRED: Final = "not_told"
"""the one that `--repair` fixes"""


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
        _REPLAY.replace("{then}", "then it is decided, and nothing is published again"),
    ),
    "invalid_and_lost": Kind(
        "no order, and no dead letter", _REPLAY.replace("{then}", "its dead letter is written then")
    ),
    "conflict_and_lost": Kind(
        "another order's id, and no dead letter", _REPLAY.replace("{then}", "its dead letter is written then")
    ),
    "unreadable_and_lost": Kind(
        "it cannot be unpacked, and was not skipped",
        "repair the disk or fetch the records from a replica; else ask upstream to send again what lay there:"
        " what is decided already stays decided",
    ),
    "blocked_by_unreadable": Kind(
        "the next record cannot be unpacked, and the orders after it wait",
        "repair the disk, or `order-worker skip {topic}:{partition}:{offset}`, which shows what is lost",
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
        "decided, and its outcome never published", "`order-worker reconcile --repair --execute` publishes it"
    ),
    "outcome_withheld": Kind(
        "decided, and its outcome not published, because its topic refuses it",
        "do what is said there: a worker publishes it by itself, once its topic takes it; --repair does not",
    ),
    "told_twice": Kind(
        "published more than once",
        "none where subscribers drop repeats by ce_id; it comes of offsets moved back with Kafka's own tool"
        " (`order-worker replay` is silent), or of offsets that the broker forgot",
    ),
    "event_differs": Kind(
        "published with other bytes than the ledger has",
        "find out who else writes to {topic}, and revoke the right; then publish the stored event again:"
        " `order-worker republish --order-id {order} --execute`",
    ),
    "wrong_topic": Kind(
        "published in the topic of the other outcome",
        "find out who else writes to {topic}, and revoke the right; inform its subscribers that it does not"
        " hold",
    ),
    "outcome_without_row": Kind(
        "published, and never decided",
        "find out who else writes to {topic}, or who deletes from the ledger; inform subscribers that it does"
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
        "the order is not what was published",
        f"it was changed by hand: {_EXPLAIN} shows the event that was published",
    ),
    "items_differ": Kind(
        "the items are not what was published",
        f"they were changed by hand: {_EXPLAIN} shows the event that was published",
    ),
    "stock_differs": Kind(
        "received − sold is not the stock",
        "somebody changed stock, items or orders by hand: count the goods, then set stock_quantity and"
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
