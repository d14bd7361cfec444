"""The campaign's model: it accepts whatever the rule gives, in any order a run may have had, and no more."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from itertools import groupby, permutations
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.events import OrderPlaced
from contracts.plain_order import PlainOrder
from db.decision import Confirmed, decide_batch
from db.stock import StockLevel
from tests.faults.decisions import Decided, Line, Placed, Reason, Start, parse_decided, parse_order
from tests.faults.model import find_violations
from tests.support.builders import line, order, order_value
from worker.core.outcome import event_json

pytestmark = [pytest.mark.guarantee_1, pytest.mark.guarantee_4]

PRICE = Decimal("2.50")
TEN_OF_EACH = Start({1: 10, 2: 10}, {1: PRICE, 2: PRICE}, frozenset({1}))
NOW = datetime(2026, 11, 23, 10, tzinfo=UTC)


@dataclass(frozen=True)
class Arrived:
    """An order at its place in the input topic."""

    order: PlainOrder
    partition: int
    offset: int


class Story:
    """Orders by name, and the decisions about them, transaction by transaction."""

    def __init__(self, start: Start = TEN_OF_EACH) -> None:
        self.start = start
        self.stock = dict(start.stock)
        self.orders: dict[UUID, Placed] = {}
        self.decided: list[Decided] = []
        self._arrived = 0
        self._commits = 0

    def arrive(self, *items: dict[str, Any], partition: int = 0, user_id: int = 1) -> Arrived:
        self._arrived += 1
        order_id = UUID(int=self._arrived)
        value = order_value(*items, order_id=order_id, user_id=user_id)
        self.orders[order_id] = parse_order(value)
        return Arrived(OrderPlaced.model_validate_json(value).plain(), partition, self._arrived)

    def commit(self, *batch: Arrived) -> list[Decided]:
        """Decide the batch by the worker's own rule, as the ledger has it."""
        self._commits += 1
        decided = decide(batch, self.stock, self.start, self._commits)
        for one in decided:
            if one.outcome == "confirmed":
                for product_id, quantity in self.orders[one.order_id].wanted().items():
                    self.stock[product_id] -= quantity
        self.decided += decided
        return decided

    def change(self, one: Decided, **changes: Any) -> None:
        self.decided[self.decided.index(one)] = replace(one, **changes)

    def violations(self) -> list[str]:
        return find_violations(self.decided, self.orders, self.start)


def decide(batch: Sequence[Arrived], stock: Mapping[int, int], start: Start, commit: int) -> list[Decided]:
    levels = {i: StockLevel.of(start.prices[i], stock[i]) for i in start.stock}
    decisions = decide_batch([a.order for a in batch], start.users, levels).decisions
    return [
        parse_decided(
            "confirmed" if isinstance(decision, Confirmed) else "rejected",
            event_json(arrived.order, decision, NOW),
            arrived.partition,
            arrived.offset,
            commit,
        )
        for arrived, decision in zip(batch, decisions, strict=True)
    ]


def accused_by(story: Story, *parts: str) -> bool:
    """Whether one violation, and only one, says all of this."""
    found = story.violations()
    assert len(found) == 1, found
    return all(part in found[0] for part in parts)


# What any run may have done ---------------------------------------------------------------------------

LINES = st.builds(
    line,
    st.sampled_from([1, 1, 2, 3, 9]),
    st.integers(1, 4),
    st.sampled_from([None, None, "2.5", "2.50", "1"]),
)
ORDERS = st.tuples(st.lists(LINES, min_size=1, max_size=3), st.sampled_from([1, 1, 1, 2, 7]))
BATCHES = st.dictionaries(st.integers(0, 3), st.lists(ORDERS, min_size=1, max_size=4), max_size=4)
SHOPS = st.builds(
    lambda stock, users: Start(stock, dict.fromkeys(stock, PRICE), users),
    st.fixed_dictionaries({1: st.integers(0, 20), 2: st.integers(0, 12)}, optional={3: st.integers(0, 6)}),
    st.sampled_from([frozenset({1, 2}), frozenset({1})]),
)


def run(start: Start, batches: Sequence[Mapping[int, Sequence[Any]]]) -> Story:
    """What a worker decides of these batches; the order of a batch's partitions is that of the mapping."""
    story = Story(start)
    for batch in batches:
        arrived = [
            story.arrive(*items, partition=partition, user_id=user_id)
            for partition, orders in batch.items()
            for items, user_id in orders
        ]
        story.commit(*arrived)
    return story


@given(SHOPS, st.lists(BATCHES, max_size=5), st.randoms(use_true_random=False))
def test_whatever_the_rule_decides_is_accepted_however_the_rows_are_read(start, batches, chance):
    story = run(start, batches)
    chance.shuffle(story.decided)
    assert story.violations() == []


@settings(max_examples=100)
@given(SHOPS, SHOPS, st.lists(BATCHES, min_size=1, max_size=3))
def test_decisions_of_one_shop_fit_another_only_if_it_could_have_made_them(here, there, batches):
    story = run(here, batches)
    arrived = {o: order_again(o, placed) for o, placed in story.orders.items()}
    assert (find_violations(story.decided, story.orders, there) == []) == could_be(
        story.decided, arrived, story.orders, there
    )


def order_again(order_id: UUID, placed: Placed) -> PlainOrder:
    items = [line(i.product_id, i.quantity, None if i.price is None else str(i.price)) for i in placed.lines]
    return order(*items, order_id=order_id, user_id=placed.user_id)


def could_be(
    decided: Sequence[Decided],
    arrived: Mapping[UUID, PlainOrder],
    orders: Mapping[UUID, Placed],
    start: Start,
) -> bool:
    """Try every order of the partitions of every transaction, with the worker's own rule."""
    stock = dict(start.stock)
    for commit, rows in groupby(decided, key=lambda one: one.commit_order):
        runs = [list(run) for _, run in groupby(rows, key=lambda one: one.source_partition)]
        if not any(gives(ordered, arrived, stock, start, commit) for ordered in permutations(runs)):
            return False
        for one in (one for run in runs for one in run if one.outcome == "confirmed"):
            for product_id, quantity in orders[one.order_id].wanted().items():
                stock[product_id] -= quantity
    return True


def gives(
    runs: Sequence[Sequence[Decided]],
    arrived: Mapping[UUID, PlainOrder],
    stock: Mapping[int, int],
    start: Start,
    commit: int,
) -> bool:
    decided = [one for run in runs for one in run]
    batch = [Arrived(arrived[o.order_id], o.source_partition, o.source_offset) for o in decided]
    return decide(batch, stock, start, commit) == decided


# The order within a transaction -----------------------------------------------------------------------


def test_the_partitions_of_one_batch_may_have_come_in_any_order():
    story = Story()
    low, high = story.arrive(line(1, 8), partition=0), story.arrive(line(1, 3), partition=1)
    _, rejected = story.commit(low, high)
    assert story.violations() == []
    story.change(rejected, source_partition=-1)
    assert story.violations() == []


def test_the_orders_of_one_partition_may_not():
    story = Story()
    first, second = story.arrive(line(1, 8)), story.arrive(line(1, 3))
    story.commit(second, first)
    assert story.violations(), "the second was confirmed and the first was not, although it came first"


def test_two_runs_that_each_need_the_other_before_them_are_found_out():
    story = Story()
    batch = [
        story.arrive(line(1, 3), partition=0),
        story.arrive(line(2, 8), partition=0),
        story.arrive(line(2, 3), partition=1),
        story.arrive(line(1, 8), partition=1),
    ]
    one, _, other, _ = story.decided = [decide([a], story.stock, TEN_OF_EACH, 1)[0] for a in batch]
    rejected = {"outcome": "rejected", "total": None, "lines": (), "retryable": True}
    story.change(one, **rejected, reasons=(Reason("insufficient_stock", 1, 3, 2),))
    story.change(other, **rejected, reasons=(Reason("insufficient_stock", 2, 3, 2),))
    assert story.violations()
    del story.decided[2]
    assert story.violations() == [], "one that needs the other is right behind it"


def test_eight_partitions_that_only_fit_one_way_are_put_in_order():
    story = Story()
    batch = [
        story.arrive(line(1, 1), line(2, n + 1), partition=p) for n, p in enumerate((3, 0, 7, 5, 1, 6, 2, 4))
    ]
    story.commit(*batch)
    assert [one.outcome for one in story.decided].count("confirmed") == 4
    assert story.violations() == []


# What must be found out -------------------------------------------------------------------------------


def test_an_oversell_is_found_out():
    story = Story()
    story.commit(story.arrive(line(1, 6)))
    story.stock[1] = 10  # as a worker that does not see the other's sale
    story.commit(story.arrive(line(1, 3), line(1, 2), partition=1))
    assert accused_by(story, "confirmed against", "requested 5 available 4")


def test_an_oversell_within_one_batch_is_found_out():
    for partition in (0, 1):
        story = Story()
        batch = story.arrive(line(1, 6)), story.arrive(line(1, 6), partition=partition)
        story.decided = [decide([arrived], story.stock, TEN_OF_EACH, 1)[0] for arrived in batch]
        assert accused_by(story, "confirmed against", "requested 6 available 4")


def test_one_wrong_decision_accuses_no_other_partition_of_its_batch():
    story = Story()
    batch = [story.arrive(line(1, 11 - p), partition=p) for p in range(8)]
    wrong = story.commit(*batch)[0]
    assert story.violations() == []
    story.change(wrong, reasons=(Reason("insufficient_stock", 1, 11, 9),))
    assert len(story.violations()) == 2, "the reason that is missing, and the one listed instead"


def test_a_wrong_available_is_found_out():
    story = Story()
    (rejected,) = story.commit(story.arrive(line(1, 11)))
    story.change(rejected, reasons=(Reason("insufficient_stock", 1, 11, 9),))
    missing, wrong = story.violations()
    assert "does not list the reason: insufficient_stock product_id 1 requested 11 available 10" in missing
    assert "lists a wrong reason: insufficient_stock product_id 1 requested 11 available 9" in wrong


def test_each_missing_reason_and_each_reason_too_many_is_found_out():
    story = Story()
    items = line(1, 11), line(9), line(2, 1, "1.00"), line(2, 1, "3.00")
    (rejected,) = story.commit(story.arrive(*items, user_id=7))
    assert story.violations() == []
    codes = [reason.code for reason in rejected.reasons]
    assert sorted(codes) == [
        "insufficient_stock",
        "price_changed",
        "price_changed",
        "unknown_product",
        "unknown_user",
    ]
    for reason in rejected.reasons:
        story.decided = [replace(rejected, reasons=tuple(r for r in rejected.reasons if r != reason))]
        assert accused_by(story, "does not list the reason", str(reason))
        story.decided = [replace(rejected, reasons=(*rejected.reasons, reason))]
        assert accused_by(story, "lists a wrong reason", str(reason))


def test_a_shortage_before_the_commit_is_listed_with_another_reason():
    story = Story()
    story.commit(story.arrive(line(2, 7)))
    story.stock[2] = 10  # as a worker that read before that commit
    story.commit(story.arrive(line(1, 11), line(2, 5), partition=1))
    assert accused_by(story, "does not list the reason", "product_id 2 requested 5 available 3")


def test_two_swapped_commits_are_found_out_where_it_matters():
    story = Story()
    (sale,) = story.commit(story.arrive(line(1, 8)))
    (rejection,) = story.commit(story.arrive(line(1, 3), partition=1))
    assert story.violations() == []
    story.change(sale, commit_order=2)
    story.change(rejection, commit_order=1)
    assert accused_by(story, "lists a wrong reason", "requested 3 available 2")


def test_two_swapped_commits_are_accepted_where_it_does_not_matter():
    story = Story()
    (sale,) = story.commit(story.arrive(line(1, 8)))
    (rejection,) = story.commit(story.arrive(line(2, 11), partition=1))
    story.change(sale, commit_order=2)
    story.change(rejection, commit_order=1)
    assert story.violations() == []


def test_a_rejection_that_was_only_true_before_an_earlier_transaction_is_found_out():
    story = Story()
    story.commit(story.arrive(line(1, 3)))
    story.stock[1] = 10
    story.commit(story.arrive(line(1, 11), partition=1))
    missing, wrong = story.violations()
    assert "available 7" in missing
    assert "available 10" in wrong


def test_an_order_decided_before_one_that_lies_before_it_is_found_out():
    story = Story()
    first, second = story.arrive(line(1)), story.arrive(line(2))
    story.commit(second)
    story.commit(first)
    assert accused_by(story, "offset 1", "was decided only after", "offset 2")


def test_a_wrong_bill_is_found_out():
    story = Story()
    (sale,) = story.commit(story.arrive(line(1, 2), line(2, 1)))
    story.decided = [replace(sale, total=Decimal("7.51"))]
    assert accused_by(story, "costs 7.51, not 7.50")
    for lines in (
        (Line(1, 2, PRICE), Line(2, 1, Decimal("2.49"))),
        (Line(1, 2, PRICE), Line(2, 2, PRICE)),
        (Line(2, 1, PRICE), Line(1, 2, PRICE)),
        (Line(1, 2, PRICE),),
    ):
        story.decided = [replace(sale, lines=lines)]
        assert accused_by(story, "was sold as")


def test_a_confirmation_against_user_product_or_price_is_found_out():
    sale = {"outcome": "confirmed", "reasons": (), "retryable": None, "total": Decimal("2.50")}
    for item, user_id, code in (
        (line(1), 7, "unknown_user"),
        (line(1, 1, "2.49"), 1, "price_changed"),
    ):
        story = Story()
        (rejected,) = story.commit(story.arrive(item, user_id=user_id))
        story.change(rejected, **sale, lines=(Line(1, 1, PRICE),))
        assert accused_by(story, "confirmed against", code)
    story = Story()
    (rejected,) = story.commit(story.arrive(line(1), line(9)))
    story.change(rejected, **sale, lines=(Line(1, 1, PRICE), Line(9, 1, None)))
    assert accused_by(story, "confirmed against", "unknown_product product_id 9")


def test_a_rejection_of_what_fitted_is_found_out():
    story = Story()
    (sale,) = story.commit(story.arrive(line(1)))
    rejection = replace(sale, outcome="rejected", total=None, lines=(), retryable=True)
    story.decided = [rejection]
    assert accused_by(story, "without a reason")
    story.decided = [replace(rejection, reasons=(Reason("insufficient_stock", 1, 1, 0),))]
    assert accused_by(story, "lists a wrong reason")


def test_an_order_nobody_placed_another_user_and_an_unknown_outcome_are_found_out():
    story = Story()
    (sale,) = story.commit(story.arrive(line(1)))
    story.decided = [replace(sale, order_id=UUID(int=99))]
    assert accused_by(story, "nobody placed it")
    story.decided = [replace(sale, user_id=2)]
    assert accused_by(story, "names user 2, and user 1 placed it")
    story.decided = [replace(sale, outcome="maybe")]
    assert accused_by(story, "unknown outcome 'maybe'")


def test_a_rejection_says_retryable_only_when_stock_is_all_that_is_missing():
    story = Story()
    (short,) = story.commit(story.arrive(line(1, 11)))
    story.change(short, retryable=False)
    assert accused_by(story, "retryable=False")
