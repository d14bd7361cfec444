"""The benchmark's arithmetic and its tables; its servers are real, so it is run, not tested, as a whole."""

from collections import Counter
from pathlib import Path

import pytest

from bench import peer, report
from bench.contenders import baseline, worker
from bench.drain import Cores, Drained, Look, from_where_all_began, rate
from bench.errors import BenchError
from bench.latency import WARM_UP_SECONDS, due_seconds, percentile
from bench.peer import Peer
from bench.plot import Bars, Lines
from bench.recovery import judge
from bench.run import turned
from bench.workload import HOT_PRODUCT, MAX_ITEMS, PRODUCTS, STOCK, USERS, Shape, Workload, price_of

MIB = 1024 * 1024


def drained(orders_per_second: float, peak_mib: int = 100) -> Drained:
    return Drained(orders_per_second, Cores(0.5, 0.4, 0.1, 0.05), peak_mib * MIB)


# --- orders ---


@pytest.mark.parametrize("shape", Shape)
def test_the_same_orders_come_each_time(shape: Shape) -> None:
    workload = Workload(50, shape)
    assert list(workload.messages()) == list(workload.messages())
    assert len(workload.expected.order_ids) == 50
    assert len(list(workload.messages())) == workload.records


@pytest.mark.parametrize("shape", Shape)
def test_what_is_expected_is_what_is_placed_and_within_stock(shape: Shape) -> None:
    orders = list(Workload(200, shape).orders())
    expected = Workload(200, shape).expected
    assert expected.lines == sum(len(order.items) for order in orders)
    assert sum(expected.taken.values()) == sum(item.quantity for order in orders for item in order.items)
    assert max(expected.taken.values()) < STOCK
    assert {order.user_id for order in orders} <= set(USERS)
    assert {item.product_id for order in orders for item in order.items} <= set(PRODUCTS)


def test_uniform_orders_have_three_items_on_average_at_their_price() -> None:
    orders = list(Workload(2_000).orders())
    lines = [item for order in orders for item in order.items]
    assert all(item.unit_price == price_of(item.product_id) for item in lines)
    assert max(len(order.items) for order in orders) == MAX_ITEMS
    assert len(lines) / len(orders) == pytest.approx(3, abs=0.15)


def test_a_tenth_of_the_orders_comes_twice_where_duplicates_are_asked_for() -> None:
    workload = Workload(2_000, Shape.DUPLICATES)
    times = Counter(message.key for message in workload.messages())
    assert set(times.values()) == {1, 2}
    assert workload.records == pytest.approx(2_200, abs=60)


def test_the_hot_product_is_in_every_order() -> None:
    orders = Workload(100, Shape.HOT).orders()
    assert all(HOT_PRODUCT in {item.product_id for item in order.items} for order in orders)


def test_by_zipf_a_few_products_are_wanted_most() -> None:
    taken = Workload(2_000, Shape.ZIPF).expected.taken
    assert sum(taken[i] for i in range(1, 51)) > sum(taken.values()) / 2


def test_real_orders_have_some_twenty_lines() -> None:
    workload = Workload(1_000, Shape.REAL)
    assert 15 < workload.expected.lines / 1_000 < 30


# --- rates ---


def test_the_first_batch_of_all_counts_neither_as_orders_nor_as_time() -> None:
    looks = [Look(9.0, {0: 2_000}), Look(10.0, {0: 2_000, 1: 2_000}), Look(12.0, {0: 6_000, 1: 6_000})]
    counted = list(from_where_all_began(looks, [{0, 2}, {1, 3}]))
    assert counted == looks[1:]
    assert rate(counted[0], counted[-1]) == 4_000


def test_each_round_begins_with_another() -> None:
    assert [turned(["a", "b", "c"], number)[0] for number in range(4)] == ["a", "b", "c", "a"]


def test_rates_are_medians_and_multiples_of_the_first_one() -> None:
    columns = report.rates(
        {
            baseline().name: [drained(90), drained(100), drained(110)],
            worker(2).name: [drained(5_000, 120), drained(7_000, 130), drained(6_000, 125)],
            "limit": [Drained(9_000, None, None)],
        }
    )
    assert columns.rows[1][:5] == ["worker × 2", "6,000", "5,000–7,000", "60.0", "130 MiB"]
    assert columns.rows[2] == ["limit", "9,000", "9,000–9,000", "90.0", "", "", "", "", ""]


@pytest.mark.parametrize(("share", "value"), [(0.5, 51), (0.99, 100), (0.999, 100), (0.0, 1)])
def test_a_percentile_is_a_value_that_was_measured(share: float, value: float) -> None:
    assert percentile([float(n) for n in range(1, 101)], share) == value


def test_orders_are_due_at_a_rate_that_rises_and_then_stays() -> None:
    due = due_seconds(100.0, 3.0)
    assert due == sorted(due)
    after = [seconds for seconds in due if seconds >= WARM_UP_SECONDS]
    assert (after[0], after[-1], len(after)) == (WARM_UP_SECONDS, WARM_UP_SECONDS + 2.99, 300)
    by_second = Counter(int(seconds) for seconds in due)
    assert [by_second[second] for second in range(8)] == [10, 30, 50, 70, 90, 100, 100, 100]


def test_however_slow_the_rate_two_orders_are_due() -> None:
    assert due_seconds(0.1, 1.0) == [WARM_UP_SECONDS, WARM_UP_SECONDS + 10.0]


# --- recovery ---


def looks_of(rates: list[tuple[int, int]]) -> list[Look]:
    """A look each half second, of two partitions that decide so many orders in it."""
    looks, first, second = [Look(0.0, {0: 1, 1: 1})], 1, 1
    for number, (of_first, of_second) in enumerate(rates, 1):
        first, second = first + of_first, second + of_second
        looks.append(Look(number / 2, {0: first, 1: second}))
    return looks


def test_a_kill_is_over_when_all_partitions_move_and_the_rate_is_back() -> None:
    steady, one, slow = (500, 500), (700, 0), (700, 100)
    killed = judge(looks_of([steady] * 6 + [one] * 4 + [slow] * 2 + [steady] * 4), killed_at=3.0)
    assert killed.rate_before == 2_000
    assert killed.lowest_rate == 1_400
    assert killed.idle_seconds == 2.5
    assert killed.recovered_seconds == 4.0


def test_a_backlog_that_ends_before_the_rate_is_back_says_so() -> None:
    with pytest.raises(BenchError, match="before the rate was back"):
        judge(looks_of([(500, 500)] * 6 + [(500, 0)] * 4), killed_at=3.0)


# --- peers ---


def test_a_peer_has_a_name_a_command_and_maybe_a_number_of_orders() -> None:
    assert peer.parse("go:5000=./go {orders} a=b") == Peer("go", "./go {orders} a=b", 5_000)
    assert peer.parse("go=./go") == Peer("go", "./go")


@pytest.mark.parametrize("text", ["", "go", "=./go", "go=", "go:many=./go", "go=./go {nothing}", "go=./go {"])
def test_anything_else_is_no_peer(text: str) -> None:
    with pytest.raises(ValueError, match=r"NAME=COMMAND|placeholder"):
        peer.parse(text)


# --- what is written ---


def test_markdown_is_a_table_that_aligns() -> None:
    columns = report.Columns(("orders", "memory"), [("30,000", "100 MiB"), ("300,000", "90 MiB")])
    lines = report.markdown(columns, "Memory", ["on a machine"]).splitlines()
    assert lines[0] == "**Memory**"
    assert lines[2:6] == [
        "| orders  |  memory |",
        "| :------ | ------: |",
        "| 30,000  | 100 MiB |",
        "| 300,000 |  90 MiB |",
    ]
    assert lines[-1] == "- on a machine"


@pytest.mark.parametrize(
    "figure",
    [
        Bars([("worker × 2", 1.0, 2.0, 3.0)], "orders/s"),
        Lines("seconds", {"orders/s": [(0.0, 1.0), (1.0, 2.0)]}),
        Lines("share", {"ms": {"idle": [(0.0, 1.0), (0.5, 9.0)]}}, logarithmic=True),
    ],
    ids=["bars", "lines", "curves"],
)
def test_a_section_is_kept_as_a_table_and_a_plot(figure: Bars | Lines, tmp_path: Path) -> None:
    section = report.Section("rates", "Rates", report.Columns(("a",), [("b",)]), ["a note"], figure)
    report.keep(section, ["on a machine"], tmp_path)
    assert (tmp_path / "rates.md").read_text(encoding="utf-8").endswith("- a note\n- on a machine\n")
    assert "<svg" in (tmp_path / "rates.svg").read_text(encoding="utf-8")
