"""The shop that the listings' benchmark makes up, and its arithmetic; it is run in tests/integration."""

from collections import Counter
from dataclasses import dataclass
from decimal import Decimal
from itertools import pairwise

import pytest

from bench import report
from bench.fill import (
    BATCH,
    CANCELLED,
    COMPLETED,
    FIRST,
    LAST,
    PORTION,
    Portion,
    Size,
    Written,
    customer,
    portion,
)
from bench.listings import Timed, find_differing, page_table, report_table
from bench.workload import MAX_ITEMS
from db.statuses import OrderStatus

SIZE = Size(orders=PORTION + 2_000, users=2_000, products=500)


@pytest.fixture(scope="module")
def made() -> Portion:
    return portion(SIZE, 0)


def test_a_portion_is_the_same_each_time_and_no_other_is_like_it(made: Portion) -> None:
    assert portion(SIZE, 0) == made
    assert {order[0] for order in portion(SIZE, 1).orders}.isdisjoint(order[0] for order in made.orders)


def test_all_portions_together_are_all_orders() -> None:
    written = Written()
    for number in SIZE.portions:
        written.add(portion(SIZE, number))
    assert written.orders == SIZE.orders
    assert written.items / written.orders == pytest.approx(3, abs=0.1)
    assert written.cancelled / written.orders == pytest.approx(CANCELLED, abs=0.01)


def test_every_total_is_that_of_its_items_which_are_of_different_products(made: Portion) -> None:
    totals: Counter[object] = Counter()
    products: dict[object, set[int]] = {}
    lines: Counter[object] = Counter()
    for order_id, line_number, product_id, quantity, price in made.items:
        totals[order_id] += quantity * price
        products.setdefault(order_id, set()).add(product_id)
        lines[order_id] += 1
        assert line_number == lines[order_id]
        assert price == SIZE.prices[product_id]
        assert isinstance(price, Decimal)
    assert {order[0]: order[3] for order in made.orders} == totals
    assert {order_id: len(found) for order_id, found in products.items()} == lines
    assert set(lines.values()) == set(range(1, MAX_ITEMS + 1))


def test_what_was_cancelled_was_not_sold(made: Portion) -> None:
    cancelled = {order[0] for order in made.orders if order[2] is OrderStatus.CANCELLED}
    sold: Counter[int] = Counter()
    for order_id, _, product_id, quantity, _ in made.items:
        if order_id not in cancelled:
            sold[product_id] += quantity
    assert made.sold == sold
    statuses = Counter(order[2] for order in made.orders)
    assert statuses[OrderStatus.COMPLETED] / len(made.orders) == pytest.approx(COMPLETED, abs=0.02)


def test_orders_of_one_batch_share_their_time_and_the_times_fill_a_year(made: Portion) -> None:
    times = [order[5] for order in [*made.orders, *portion(SIZE, 1).orders]]
    assert max(Counter(times).values()) <= BATCH
    assert all(earlier <= later for earlier, later in pairwise(times))
    assert times[0] == FIRST
    assert times[-1] < LAST
    assert all(order[4] <= order[5] for order in made.orders)


def test_one_customer_has_a_thousandth_of_all_orders_and_half_have_few() -> None:
    size = Size(orders=1_000_000, users=200_000, products=100)
    buyers = Counter(customer(size, (number + 0.5) / size.orders) for number in range(size.orders))
    assert buyers.most_common(1)[0][1] == pytest.approx(1_000, rel=0.02)
    assert sorted(buyers.values())[len(buyers) // 2] in {3, 4, 5}


def test_every_customer_is_a_user() -> None:
    assert {customer(SIZE, n / 50_000) for n in range(50_000)} <= set(range(1, SIZE.users + 1))
    assert 1 <= customer(SIZE, 1 - 2**-53) <= SIZE.users


def timed(*milliseconds: float) -> Timed:
    return Timed("list_orders", 1_000, 1, [m / 1_000 for m in milliseconds])


def test_nineteen_of_twenty_calls_are_within_the_95th_percentile() -> None:
    assert timed(*range(1, 21)).p95_ms == pytest.approx(19)
    assert timed(*range(20, 0, -1)).median_ms == pytest.approx(10.5)
    assert timed(7).p95_ms == pytest.approx(7)


def test_the_table_says_which_listings_are_within_the_claim() -> None:
    rows = page_table([timed(10, 40), timed(10, 1_060)]).rows
    assert rows[0] == ("list_orders", "1,000", "1", "25.0", "40.0", "yes")
    assert rows[1] == ("list_orders", "1,000", "1", "535.0", "1,060.0", "no")


def test_nothing_is_claimed_of_reports() -> None:
    columns = report_table([timed(1)])
    assert "| list_orders | 1,000 |          1 |       1.0 |    1.0 |" in report.markdown(
        columns, "Reports", []
    )


@dataclass
class Row:
    id: int


def test_a_page_that_is_another_by_key_than_by_skip_is_named() -> None:
    page, other = [Row(1), Row(2)], [Row(2), Row(1)]
    assert find_differing([("users after 10", page), ("users after 10", page), ("", other)]) == []
    assert find_differing(
        [("users after 10", page), ("orders after 5", page), ("users after 10", other)]
    ) == ["users after 10"]
