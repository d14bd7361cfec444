"""Shapes of orders (skew, size, duplicates), and numbers of partitions and processes."""

from functools import partial
from typing import Final

from bench import report
from bench.contenders import worker
from bench.drain import PARTITIONS, Drained
from bench.plot import Bars
from bench.run import Bench, median_rate, orders_a_second
from bench.workload import Shape, Workload

ORDERS: Final = 120_000
REAL_ORDERS: Final = 20_000
# Partitions and processes, besides those that the shapes are measured with.
SPREADS: Final = ((1, 1), (PARTITIONS, 1), (PARTITIONS, 4), (16, 1), (16, 2), (16, 4))


def measure(bench: Bench) -> report.Section:
    """One row a shape, then one row a spread; ratios to uniform orders on the usual spread."""
    shapes = {shape: Workload(bench.orders(_count(shape)), shape) for shape in Shape}
    uniform = shapes[Shape.UNIFORM]
    entries = {str(shape): partial(bench.drain, worker(2), one) for shape, one in shapes.items()}
    workloads = {str(shape): one for shape, one in shapes.items()}
    for partitions, processes in SPREADS:
        name = f"{partitions} partition{'s' * (partitions > 1)}, {processes} process{'es' * (processes > 1)}"
        entries[name] = partial(bench.drain, worker(processes), uniform, partitions=partitions)
        workloads[name] = uniform
    results = bench.interleaved(entries, orders_a_second)
    base = median_rate(results[str(Shape.UNIFORM)])
    rows = [_row(name, drains, workloads[name], base) for name, drains in results.items()]
    head = ("", "orders/s", "range", "items/s", "÷ uniform", "peak")
    notes = [
        f"orders: {uniform.count:,}, real ones {shapes[Shape.REAL].count:,};"
        f" the shapes with 2 processes on {PARTITIONS} partitions; the spreads with uniform orders",
        "duplicates: records a second, a tenth more than orders; they count neither as orders nor as items",
    ]
    title = f"Shapes of orders and spreads, medians of {report.rounds(bench.rounds)}"
    bars = [(name, *_spread(drains)) for name, drains in results.items()]
    return report.Section("shapes", title, report.Columns(head, rows), notes, Bars(bars, "orders/s"))


def _count(shape: Shape) -> int:
    return REAL_ORDERS if shape is Shape.REAL else ORDERS


def _spread(drains: list[Drained]) -> tuple[float, float, float]:
    rates = [drained.orders_per_second for drained in drains]
    return min(rates), median_rate(drains), max(rates)


def _row(name: str, drains: list[Drained], workload: Workload, base: float) -> tuple[str, ...]:
    lowest, rate, highest = _spread(drains)
    items = rate * workload.expected.lines / workload.records
    peak = max(drained.peak_bytes or 0 for drained in drains)
    return (
        name,
        f"{rate:,.0f}",
        f"{lowest:,.0f}–{highest:,.0f}",
        f"{items:,.0f}",
        f"{rate / base:.2f}",
        report.mib(peak),
    )
