"""Lines in another order are no conflict, and a conflict names the field that differs."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.plain_order import PlainOrder
from db.bulk.rows import LedgerRow
from db.decision import Confirmed, Decision, Rejected, UnknownUser
from tests.support.builders import line, order
from worker.core.outcome import event_json
from worker.core.same_order import (
    UNKNOWN_OFFSET,
    difference,
    difference_from_row,
    is_same,
    sorted_fingerprint_of,
)

pytestmark = pytest.mark.guarantee_3

ID = UUID(int=1)
NOW = datetime(2026, 11, 23, tzinfo=UTC)
PRICE = "2.50"
REJECTED = Rejected((UnknownUser(),))


def placed(*items: dict[str, Any], **fields: Any) -> PlainOrder:
    return order(*items, order_id=ID, **fields)


def row_of(one: PlainOrder, decision: Decision | None = None, **changes: Any) -> LedgerRow:
    """The ledger's row of an order that was decided, every product at the one price."""
    prices = [PRICE] * len(one.items)
    decision = decision or Confirmed(sum(250 * item.quantity for item in one.items), prices)
    outcome = "rejected" if isinstance(decision, Rejected) else "confirmed"
    more = one.sorted_fingerprint() if outcome == "rejected" else None
    event = event_json(one, decision, NOW)
    row = LedgerRow(ID, outcome, one.fingerprint(), "placed", 0, 7, event, NOW, more)
    return row._replace(**changes)


def same(one: PlainOrder, row: LedgerRow) -> bool:
    return is_same(one, one.fingerprint(), row)


lines = st.builds(line, st.sampled_from([1, 2, 3]), st.sampled_from([1, 2]), st.none() | st.just(PRICE))
baskets = st.lists(lines, min_size=1, max_size=6, unique_by=lambda i: (i["product_id"], i["quantity"]))


@given(
    baskets.flatmap(lambda b: st.tuples(st.just(b), st.permutations(b))), st.sampled_from([None, REJECTED])
)
def test_lines_in_another_order_are_the_same_order(
    two: tuple[Sequence[dict[str, Any]], Sequence[dict[str, Any]]], decision: Decision | None
):
    first, again = placed(*two[0]), placed(*two[1])
    assert same(again, row_of(first, decision))
    assert again.sorted_fingerprint() == first.sorted_fingerprint()


@given(baskets, baskets, st.sampled_from([None, REJECTED]))
def test_other_lines_are_another_order(
    one: list[dict[str, Any]], other: list[dict[str, Any]], decision: Decision | None
):
    alike = sorted(map(json.dumps, one)) == sorted(map(json.dumps, other))
    assert same(placed(*other), row_of(placed(*one), decision)) == alike


def test_a_row_of_an_older_version_knows_its_exact_repeat_whatever_was_decided():
    one, turned = placed(line(1), line(2)), placed(line(2), line(1))
    rejected = row_of(one, REJECTED, sorted_fingerprint=None)
    assert same(one, rejected)
    assert not same(turned, rejected), "nothing shows its lines"
    assert same(turned, row_of(one)), "its event has them"
    strange = row_of(one, event='{"of": "another time"}')
    assert same(one, strange)
    assert not same(turned, strange)


@pytest.mark.parametrize(
    ("changed", "path", "says"),
    [
        (placed(line(1), line(2, 2), user_id=2), "user_id", "(2 here, 1 there)"),
        (
            placed(line(1), line(2, 2), placed_at="2026-11-23T11:00:01+01:00"),
            "placed_at",
            "(2026-11-23T10:00:01Z here, 2026-11-23T10:00:00Z there)",
        ),
        (placed(line(2, 2), line(3)), "items.1.product_id", "differs"),
        (placed(line(2, 3), line(1)), "items.0.quantity", "differs"),
        (placed(line(1)), "items", "differ"),
        (placed(line(1), line(2, 2), line(2, 2)), "items.2.quantity", "differs"),
        (placed(line(2, 2), line(1, 1, "9.99")), "items.1.unit_price", "differs"),
        (placed(line(1, 1, PRICE), line(2, 2)), "items", "differ"),
    ],
)
def test_the_first_field_that_differs_is_named(changed: PlainOrder, path: str, says: str):
    found = difference_from_row(changed, row_of(placed(line(1), line(2, 2))))
    assert found.path == path
    assert found.message.startswith(f"{path} differ")
    assert says in found.message
    assert found.message.endswith("from the decided order's; that decision stands") or "here" in found.message
    within_a_batch = difference(changed, placed(line(1), line(2, 2)))
    assert within_a_batch.path == (
        path if path != "items" or len(changed.items) == 1 else "items.0.unit_price"
    )


def pruned(row: LedgerRow) -> LedgerRow:
    """As a pruning leaves it."""
    kept = row.sorted_fingerprint
    if row.outcome == "confirmed" and row.event is not None:
        kept = sorted_fingerprint_of(row.fingerprint, row.event)
    return row._replace(event=None, sorted_fingerprint=kept)


@pytest.mark.parametrize("decision", [None, REJECTED], ids=["confirmed", "rejected"])
@pytest.mark.parametrize("price", [None, PRICE])
def test_a_pruned_row_knows_its_order_in_any_order_of_its_lines(price: str | None, decision: Decision | None):
    one, turned = placed(line(1, 1, price), line(2, 2, price)), placed(line(2, 2, price), line(1, 1, price))
    row = pruned(row_of(one, decision))
    assert (same(one, row), same(turned, row)) == (True, True)
    other = placed(line(1, 1, price), line(2, 3, price))
    assert not same(other, row)
    assert difference_from_row(other, row).path == "order_id"


def test_of_an_order_with_prices_on_some_lines_a_pruned_row_knows_exact_repeats():
    one, turned = placed(line(1, 1, PRICE), line(2)), placed(line(2), line(1, 1, PRICE))
    row = pruned(row_of(one))
    assert row.sorted_fingerprint is None
    assert (same(one, row), same(turned, row)) == (True, False)
    assert sorted_fingerprint_of(one.fingerprint(), '{"of": "another time"}') is None


def test_what_is_not_stored_is_not_made_up():
    one, other = placed(line(1)), placed(line(2))
    assert difference_from_row(other, row_of(one, REJECTED)).path == "items"
    assert difference_from_row(placed(line(2), user_id=3), row_of(one, REJECTED)).path == "user_id"
    gone = difference_from_row(other, row_of(one, REJECTED, source_offset=UNKNOWN_OFFSET))
    assert (gone.path, "is gone" in gone.message) == ("order_id", True)
    assert difference_from_row(other, row_of(one, event="{}")).path == "order_id"
