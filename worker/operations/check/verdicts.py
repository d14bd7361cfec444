"""The verdicts on the orders of a file: what workers would decide if they were placed now. Pure."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple
from uuid import UUID

from contracts.events import DeadLetterCode, ReasonCode
from contracts.fields import MAX_TOTAL_CENTS, over_total_text
from contracts.plain_order import PlainOrder
from db.bulk.rows import LedgerRow
from db.decision import (
    Confirmed,
    Decision,
    InsufficientStock,
    PriceAndStock,
    PriceChanged,
    Refusal,
    Rejected,
    UnknownProduct,
    UnknownUser,
    decide_batch,
)
from db.statuses import Outcome
from db.stock import StockLevel
from worker.core.decode import Invalid
from worker.core.results import ID_TAKEN
from worker.core.same_order import difference_from_row, is_same
from worker.operations.check.seen_orders import Earlier
from worker.operations.orders.rejection import rejection_codes


class ExpectedFate(StrEnum):
    """The result for one line."""

    CONFIRMED = "confirmed"
    REJECTED = "rejected"
    DUPLICATE = "duplicate"  # confirmed already, or named by an earlier line, with the same content
    REJECTED_BEFORE = "rejected_before"  # rejected already, with the same content: it stays rejected
    CONFLICT = "conflict"  # the id belongs to another order: a dead letter
    INVALID = "invalid"  # not the contract, or more than the database holds: a dead letter
    VALID = "valid"  # keeps the contract; nothing else was looked at


@dataclass(frozen=True, slots=True)
class CheckFinding:
    """One problem of one line. `path` names the field; empty for the whole value."""

    line: int
    order_id: UUID | None
    fate: ExpectedFate
    code: str
    path: str
    message: str


@dataclass(slots=True)
class Summary:
    """How many lines have which fate, and how many orders would be rejected for each reason."""

    orders: int = 0
    fates: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    unknown_fields: int = 0

    def count(self, fate: ExpectedFate, codes: Iterable[str] = ()) -> None:
        self.orders += 1
        self.fates[fate.value] += 1
        self.reasons.update(dict.fromkeys(codes, 1))

    @property
    def is_good(self) -> bool:
        """Every line would be confirmed or is a duplicate, and not of a rejected order."""
        return self.fates.keys() <= {ExpectedFate.CONFIRMED, ExpectedFate.DUPLICATE, ExpectedFate.VALID}


class Candidate(NamedTuple):
    """A decoded line, and the line before it that has the same id."""

    line: int
    order: PlainOrder
    fingerprint: bytes
    earlier: Earlier | None


class Verdict(NamedTuple):
    """The fate of one line, with all its problems."""

    fate: ExpectedFate
    findings: tuple[CheckFinding, ...] = ()


def invalid(line: int, why: Invalid) -> Verdict:
    """The verdict on a line that is not an order."""
    finding = CheckFinding(line, None, ExpectedFate.INVALID, why.code.value, why.path, why.message)
    return Verdict(ExpectedFate.INVALID, (finding,))


def repeated(
    one: Candidate,
    known: Mapping[UUID, LedgerRow],
    orders: AbstractSet[UUID],
    latest: Mapping[UUID, LedgerRow] = MappingProxyType({}),
) -> Verdict | None:
    """The verdict on an order whose id is used already, or None. `orders`: the ids in the table of orders.

    `latest`: by id, the latest decision for rejected orders that were placed again.
    """
    row = known.get(one.order.order_id)
    if row is not None:
        same = is_same(one.order, one.fingerprint, row)
        if same and row.outcome == Outcome.REJECTED:
            return _rejected_before(one, latest.get(row.order_id, row))
        if same:
            return Verdict(ExpectedFate.DUPLICATE)
        place = f"{row.source_topic}-{row.source_partition}@{row.source_offset}"
        found = difference_from_row(one.order, row)
        return _conflict(one, found.path, f"was decided, from {place}: {found.message}")
    if one.order.order_id in orders:
        return _refused(one, ExpectedFate.CONFLICT, ID_TAKEN.code, ID_TAKEN.path, ID_TAKEN.message)
    if one.earlier is not None:
        if one.earlier.fingerprint == one.order.sorted_fingerprint():
            return Verdict(ExpectedFate.DUPLICATE)
        return _conflict(one, "order_id", f"stands in line {one.earlier.line}")
    return None


def _conflict(one: Candidate, path: str, where: str) -> Verdict:
    message = f"another order of this id {where}"
    return _refused(one, ExpectedFate.CONFLICT, DeadLetterCode.ORDER_ID_CONFLICT, path, message)


def _rejected_before(one: Candidate, last: LedgerRow) -> Verdict:
    if last.outcome == Outcome.CONFIRMED:
        return Verdict(ExpectedFate.DUPLICATE)
    fate = ExpectedFate.REJECTED_BEFORE
    message = (
        f"this order was rejected ({', '.join(rejection_codes(last))}), and stays so: to place it again under"
        f" a new id, `order-worker orders reopen --order-id {last.order_id}`"
    )
    return _refused(one, fate, fate, "order_id", message)


def _refused(
    one: Candidate, fate: ExpectedFate, code: DeadLetterCode | ExpectedFate, path: str, message: str
) -> Verdict:
    return Verdict(fate, (CheckFinding(one.line, one.order.order_id, fate, code.value, path, message),))


def decide(
    new: Sequence[Candidate],
    users: AbstractSet[int],
    levels: Mapping[int, StockLevel],
    taken: Counter[int],
) -> list[Verdict]:
    """One verdict for each order, against the stock that those before left; `taken` grows by theirs."""
    left = {i: level._replace(quantity=level.quantity - taken[i]) for i, level in levels.items()}
    decisions = _decisions([one.order for one in new], users, left, taken)
    return [_verdict(one, decision) for one, decision in zip(new, decisions, strict=True)]


def _decisions(
    orders: Sequence[PlainOrder],
    users: AbstractSet[int],
    left: Mapping[int, PriceAndStock],
    taken: Counter[int],
) -> list[Decision]:
    """As `decide_batch`, but an order whose total is over its bound takes nothing from the others."""
    too_large: dict[int, Decision] = {}
    while True:
        places = [n for n in range(len(orders)) if n not in too_large]
        decided = decide_batch([orders[n] for n in places], users, left)
        found = dict(zip(places, decided.decisions, strict=True))
        if not (over := {n: d for n, d in found.items() if _is_too_large(d)}):
            taken.update(decided.taken)
            return [(found | too_large)[n] for n in range(len(orders))]
        too_large |= over


def _is_too_large(decision: Decision) -> bool:
    return isinstance(decision, Confirmed) and decision.total_cents > MAX_TOTAL_CENTS


def _verdict(one: Candidate, decision: Decision) -> Verdict:
    if isinstance(decision, Rejected):
        findings = tuple(_findings(one, decision.refusals))
        return Verdict(ExpectedFate.REJECTED, findings)
    if _is_too_large(decision):
        message = over_total_text(decision.total_cents)
        return _refused(one, ExpectedFate.INVALID, DeadLetterCode.INVALID_ORDER, "items", message)
    return Verdict(ExpectedFate.CONFIRMED)


def _findings(one: Candidate, refusals: Iterable[Refusal]) -> Iterator[CheckFinding]:
    for refusal in refusals:
        code, path, message = _described(one.order, refusal)
        yield CheckFinding(one.line, one.order.order_id, ExpectedFate.REJECTED, code.value, path, message)


def _described(order: PlainOrder, refusal: Refusal) -> tuple[ReasonCode, str, str]:
    """Code, field and words. A product of several lines is named where it stands first."""
    match refusal:
        case UnknownUser():
            return ReasonCode.UNKNOWN_USER, "user_id", f"there is no user {order.user_id}"
        case UnknownProduct(product_id):
            path = f"items.{_line_of(order, product_id)}.product_id"
            return ReasonCode.UNKNOWN_PRODUCT, path, f"there is no product {product_id}"
        case InsufficientStock(product_id, requested, available):
            path = f"items.{_line_of(order, product_id)}.quantity"
            message = f"product {product_id}: {requested:,} requested, {available:,} available"
            return ReasonCode.INSUFFICIENT_STOCK, path, message
        case PriceChanged(product_id, expected, current):
            prices = [(item.product_id, item.unit_price) for item in order.items]
            path = f"items.{prices.index((product_id, str(expected)))}.unit_price"
            return ReasonCode.PRICE_CHANGED, path, f"product {product_id} costs {current}, not {expected}"


def _line_of(order: PlainOrder, product_id: int) -> int:
    return [item.product_id for item in order.items].index(product_id)
