"""What the demo places: the right shares, valid where it should be, and the same for the same seed."""

from collections import Counter
from datetime import UTC, datetime

import pytest

from contracts.plain_order import PlainOrder
from db.decision import Rejected, decide_batch
from db.stock import StockLevel
from worker.core.decode import Decoded, Invalid, decode
from worker.core.outcome import reason_codes
from worker.sandbox.demo.feed import BROKEN, CONFLICTS, Placement, RecordKind, schedule
from worker.sandbox.demo.retailer import Retailer, read_retailer

LIMIT = 256 * 1024
STARTED_AT = datetime(2026, 11, 23, tzinfo=UTC)


@pytest.fixture(scope="module")
def retailer() -> Retailer:
    return read_retailer()


@pytest.fixture(scope="module")
def placements(retailer: Retailer) -> list[Placement]:
    return placed_with(retailer)


def placed_with(retailer: Retailer, *, seed: int = 1, seconds: float = 20.0) -> list[Placement]:
    return schedule(retailer.invoices, started_at=STARTED_AT, seconds=seconds, partitions=4, seed=seed)


def of_kind(placements: list[Placement], kind: RecordKind) -> list[Placement]:
    return [placement for placement in placements if placement.kind is kind]


def order_of(placement: Placement) -> PlainOrder:
    decoded = decode(placement.value, LIMIT)
    assert isinstance(decoded, Decoded), decoded
    return decoded.order


def test_places_every_order_once_and_some_more(placements: list[Placement]):
    assert Counter(placement.kind for placement in placements) == {
        RecordKind.ORDER: 1_798,
        RecordKind.DUPLICATE: 72,
        RecordKind.BROKEN: BROKEN,
        RecordKind.CONFLICT: CONFLICTS,
    }


def test_the_same_seed_gives_the_same_records(retailer: Retailer, placements: list[Placement]):
    assert placed_with(retailer) == placements
    assert placed_with(retailer, seed=2) != placements


def test_orders_are_valid_and_those_of_the_invoices_in_their_order(
    retailer: Retailer, placements: list[Placement]
):
    orders = [order_of(placement) for placement in of_kind(placements, RecordKind.ORDER)]
    assert [order.order_id for order in orders] == [invoice.order_id for invoice in retailer.invoices]
    assert sum(len(order.items) for order in orders) == 48_842
    keys = [placement.key.decode() for placement in of_kind(placements, RecordKind.ORDER)]
    assert keys == [str(order.order_id) for order in orders]


def test_it_is_spread_over_time_and_partitions(placements: list[Placement]):
    dues = [placement.due_seconds for placement in placements]
    assert dues == sorted(dues)
    assert 19 < dues[-1] < 20 * 1.2
    assert all(count > 350 for count in Counter(p.partition for p in placements).values())


def test_a_duplicate_follows_its_original_byte_for_byte_also_elsewhere(placements: list[Placement]):
    originals = {placement.key: placement for placement in of_kind(placements, RecordKind.ORDER)}
    duplicates = of_kind(placements, RecordKind.DUPLICATE)
    assert all(d.value == originals[d.key].value for d in duplicates)
    assert all(d.due_seconds > originals[d.key].due_seconds for d in duplicates)
    assert sum(d.partition != originals[d.key].partition for d in duplicates) == len(duplicates) // 2


def test_a_conflict_lies_behind_its_original_with_other_content(placements: list[Placement]):
    originals = {placement.key: placement for placement in of_kind(placements, RecordKind.ORDER)}
    for conflict in of_kind(placements, RecordKind.CONFLICT):
        original = originals[conflict.key]
        assert order_of(conflict).fingerprint() != order_of(original).fingerprint()
        assert conflict.partition == original.partition
        assert conflict.due_seconds > original.due_seconds


def test_a_broken_message_is_what_its_code_says_and_no_two_are_alike(placements: list[Placement]):
    broken = of_kind(placements, RecordKind.BROKEN)
    assert len({placement.value for placement in broken}) == BROKEN
    assert len({placement.key for placement in broken}) == BROKEN
    for placement in broken:
        decoded = decode(placement.value, LIMIT)
        assert isinstance(decoded, Invalid)
        assert decoded.code is placement.code


def test_few_orders_carry_prices(placements: list[Placement]):
    orders = [order_of(placement) for placement in of_kind(placements, RecordKind.ORDER)]
    priced = [order for order in orders if any(item.unit_price is not None for item in order.items)]
    assert len(priced) == 90
    assert all(item.unit_price is not None for order in priced for item in order.items)


def test_a_visible_share_is_rejected_for_stock(retailer: Retailer, placements: list[Placement]):
    decided = decide_batch(
        [order_of(placement) for placement in of_kind(placements, RecordKind.ORDER)],
        {user.id for user in retailer.users},
        {product.id: StockLevel.of(product.price, product.stock) for product in retailer.products},
    )
    rejected = [set(reason_codes(d)) for d in decided.decisions if isinstance(d, Rejected)]
    shares = {code: sum(code in codes for codes in rejected) / 1_798 for code in set().union(*rejected)}
    assert set(shares) == {"insufficient_stock", "price_changed"}
    assert 0.10 < shares["insufficient_stock"] < 0.20
    assert 0.02 < shares["price_changed"] < 0.06
