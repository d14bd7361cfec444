"""The benchmark's arithmetic and its table; its servers are real, so it is run, not tested, as a whole."""

import pytest

from bench import report
from bench.contenders import baseline, worker
from bench.drain import Cores, Drained, Look, Memory, from_where_all_began, rate
from bench.workload import MAX_ITEMS, PRODUCTS, STOCK, USERS, Workload, price_of

MIB = 1024 * 1024


def drained(orders_per_second: float, peak_mib: int = 100) -> Drained:
    return Drained(orders_per_second, Cores(0.5, 0.4, 0.1, 0.05), peak_mib * MIB, [])


def test_the_same_orders_come_each_time() -> None:
    workload = Workload(50)
    assert list(workload.messages()) == list(workload.messages())
    assert len(workload.expected.order_ids) == 50


def test_what_is_expected_is_what_is_placed() -> None:
    orders = list(Workload(200).orders())
    expected = Workload(200).expected
    assert expected.lines == sum(len(order.items) for order in orders)
    assert sum(expected.taken.values()) == sum(item.quantity for order in orders for item in order.items)
    assert max(expected.taken.values()) < STOCK


def test_orders_are_of_the_catalogue_and_have_three_items_on_average() -> None:
    orders = list(Workload(2_000).orders())
    assert {order.user_id for order in orders} <= set(USERS)
    lines = [item for order in orders for item in order.items]
    assert {item.product_id for item in lines} <= set(PRODUCTS)
    assert all(item.unit_price == price_of(item.product_id) for item in lines)
    assert max(len(order.items) for order in orders) == MAX_ITEMS
    assert len(lines) / len(orders) == pytest.approx(3, abs=0.15)


def test_the_first_batch_of_all_counts_neither_as_orders_nor_as_time() -> None:
    looks = [Look(9.0, {0: 2_000}), Look(10.0, {0: 2_000, 1: 2_000}), Look(12.0, {0: 6_000, 1: 6_000})]
    counted = list(from_where_all_began(looks, [{0, 2}, {1, 3}]))
    assert counted == looks[1:]
    assert rate(counted[0], counted[-1]) == 4_000


def test_rates_are_medians_and_multiples_of_the_first_contender() -> None:
    columns = report.rates(
        {
            baseline(): [drained(90), drained(100), drained(110)],
            worker(2): [drained(5_000, 120), drained(7_000, 130), drained(6_000, 125)],
        }
    )
    assert columns.rows[1][:5] == ["worker × 2", "6,000", "5,000–7,000", "60.0", "130 MiB"]


def test_markdown_is_a_table_that_aligns() -> None:
    columns = report.memory([Memory(30_000, 100 * MIB, 110 * MIB), Memory(300_000, 90 * MIB, 110 * MIB)])
    lines = report.markdown(columns, "Memory", ["on a machine"]).splitlines()
    assert lines[0] == "**Memory**"
    assert lines[2:6] == [
        "| orders decided | memory now | peak so far |",
        "| :------------- | ---------: | ----------: |",
        "| 30,000         |    100 MiB |     110 MiB |",
        "| 300,000        |     90 MiB |     110 MiB |",
    ]
    assert lines[-1] == "- on a machine"
