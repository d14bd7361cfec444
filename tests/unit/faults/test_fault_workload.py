"""The campaign's workload: what it promises about itself, without which its verdicts would mean less."""

import json
from collections import Counter
from decimal import Decimal

import pytest

from contracts.plain_order import PlainOrder
from db.decision import Confirmed, InsufficientStock, Rejected, decide_batch
from db.stock import StockLevel
from tests.faults.workload import HOT_PRODUCT, PRICE, SCARCE_PRODUCT, Kind, Record, Workload, make_workload
from worker.core.decode import Decoded, Invalid, decode

MAX_BYTES = 256 * 1024
COUNT, PARTITIONS = 2_000, 6


@pytest.fixture(scope="module", params=[1, 2, 3])
def workload(request: pytest.FixtureRequest) -> Workload:
    return make_workload(request.param, COUNT, PARTITIONS)


def of_kind(workload: Workload, kind: Kind) -> list[tuple[int, Record]]:
    """The records of a kind, each with its place in the order of publication."""
    return [(n, r) for n, r in enumerate(workload.records) if r.kind is kind]


def original_of(workload: Workload, copy: Record) -> tuple[int, Record]:
    (found,) = [(n, r) for n, r in of_kind(workload, Kind.ORDER) if r.order_id == copy.order_id]
    return found


def decoded(workload: Workload) -> list[PlainOrder]:
    results = [decode(value, MAX_BYTES) for value in workload.orders.values()]
    return [result.order for result in results if isinstance(result, Decoded)]


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others():
    first, again, other = (make_workload(seed, 300, 4) for seed in (5, 5, 6))
    assert first == again
    assert repr(first) == repr(again)
    assert not first.orders.keys() & other.orders.keys()


@pytest.mark.parametrize(
    ("kind", "share"), [(Kind.ORDER, 1), (Kind.DUPLICATE, 0.05), (Kind.CONFLICT, 0.02), (Kind.POISON, 0.02)]
)
def test_each_kind_has_its_share(workload: Workload, kind: Kind, share: float):
    assert len(of_kind(workload, kind)) == COUNT * share


def test_every_order_has_an_id_of_its_own_and_every_partition_has_orders(workload: Workload):
    assert len(workload.orders) == COUNT
    used = Counter(r.partition for _, r in of_kind(workload, Kind.ORDER))
    assert used.keys() == set(range(PARTITIONS))
    assert min(used.values()) > COUNT / PARTITIONS / 2


def test_a_duplicate_repeats_its_original_half_of_them_on_another_partition(
    workload: Workload,
):
    elsewhere = 0
    for place, copy in of_kind(workload, Kind.DUPLICATE):
        before, original = original_of(workload, copy)
        assert before < place
        assert (copy.key, copy.value, copy.headers) == (original.key, original.value, original.headers)
        elsewhere += copy.partition != original.partition
    assert elsewhere == COUNT * 0.05 / 2


def test_a_conflict_lies_behind_its_original_and_has_other_content(workload: Workload):
    for place, other in of_kind(workload, Kind.CONFLICT):
        before, original = original_of(workload, other)
        assert before < place
        assert other.partition == original.partition
        assert other.code == "order_id_conflict"
        two = [decode(record.value, MAX_BYTES) for record in (original, other)]
        assert len({d.fingerprint for d in two if isinstance(d, Decoded)}) == 2


def test_poison_ends_as_the_dead_letter_it_names_and_nothing_else_does(workload: Workload):
    for record in workload.records:
        result = decode(record.value, MAX_BYTES)
        if record.kind is Kind.POISON:
            assert isinstance(result, Invalid), record.value
            assert result.code == record.code, record.value
            assert record.order_id is None
            assert len(record.value or b"") <= 300_000
        else:
            assert isinstance(result, Decoded)
            assert (record.code is None) == (record.kind is not Kind.CONFLICT)


def test_the_poison_is_of_many_sorts(workload: Workload):
    poison = [r for _, r in of_kind(workload, Kind.POISON)]
    assert {r.code for r in poison} == {"empty_value", "too_large", "not_json", "invalid_order"}
    values = [r.value or b"" for r in poison]
    for mark in (b"\x00", b"\\u0000", b"NaN", b"9" * 4_000, b"1e400", b"[" * 5_000, b"true", b'"items": {}'):
        assert any(mark in value for value in values), mark


def test_null_and_foreign_headers_are_on_five_percent_of_the_sound_orders_each(workload: Workload):
    headers = [[value for _, value in r.headers] for _, r in of_kind(workload, Kind.ORDER)]
    assert sum(None in values for values in headers) == COUNT * 0.05
    assert sum(any(v is not None and not is_utf8(v) for v in values) for values in headers) == COUNT * 0.05


def is_utf8(value: bytes) -> bool:
    return value.decode(errors="ignore").encode() == value


def test_three_orders_in_ten_name_the_hot_product_and_half_of_that_demand_is_there(workload: Workload):
    lines = [json.loads(value)["items"] for value in workload.orders.values()]
    hot = [i["quantity"] for items in lines for i in items if i["product_id"] == HOT_PRODUCT]
    assert len(hot) == COUNT * 0.3
    assert workload.products[HOT_PRODUCT] == sum(hot) // 2


def test_some_orders_have_two_lines_of_a_product_that_only_fit_one_at_a_time(workload: Workload):
    there = workload.products[SCARCE_PRODUCT]
    lines = [[i.quantity for i in o.items if i.product_id == SCARCE_PRODUCT] for o in decoded(workload)]
    named = [quantities for quantities in lines if quantities]
    assert len(named) == COUNT * 0.02
    assert all(len(q) == 2 and max(q) <= there < sum(q) for q in named)


def test_a_few_orders_name_unknown_users_unknown_products_and_wrong_prices(workload: Workload):
    orders = decoded(workload)
    items = [list(order.items) for order in orders]
    assert sum(order.user_id > workload.users for order in orders) == COUNT * 0.01
    assert sum(any(i.product_id not in workload.products for i in of_one) for of_one in items) == COUNT * 0.01
    prices = [{i.unit_price for i in of_one} - {None} for of_one in items]
    assert sum(bool(p - {PRICE}) for p in prices) == COUNT * 0.01
    assert COUNT * 0.15 < sum(p == {PRICE} for p in prices) <= COUNT * 0.2


@pytest.mark.parametrize("count", [300, 5_000])
def test_about_a_third_of_the_orders_are_rejected_for_stock(count: int):
    workload = make_workload(7, count, 4)
    levels = {i: StockLevel.of(Decimal(PRICE), quantity) for i, quantity in workload.products.items()}
    decisions = decide_batch(decoded(workload), set(range(1, workload.users + 1)), levels).decisions
    short = [
        d
        for d in decisions
        if isinstance(d, Rejected) and any(isinstance(r, InsufficientStock) for r in d.refusals)
    ]
    assert 0.28 < len(short) / count < 0.42
    assert sum(isinstance(d, Confirmed) for d in decisions) > count / 2


@pytest.mark.parametrize(("orders", "partitions"), [(1, 1), (10, 1), (50, 8)])
def test_small_workloads_are_workloads_too(orders: int, partitions: int):
    workload = make_workload(1, orders, partitions)
    assert len(workload.orders) == orders
    assert {r.partition for r in workload.records} <= set(range(partitions))
