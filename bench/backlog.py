"""A large backlog: rate and memory over time, and what large tables cost."""

from collections.abc import Sequence
from functools import partial
from typing import Final

from bench import report
from bench.contenders import worker
from bench.drain import Look, rate
from bench.plot import Lines
from bench.run import Bench, median_rate, orders_a_second
from bench.shop import OLD_ROWS
from bench.workload import Workload

ORDERS: Final = 1_000_000
# More than in the other parts: after a checkpoint the first row on a page writes the whole page to the log,
# and each of 120,000 orders was the first on some page of the large keys.
TABLES_ORDERS: Final = 400_000
SHARES: Final = (0.1, 0.25, 0.5, 0.75, 1.0)
_POINTS: Final = 60  # of the plot


def measure_backlog(bench: Bench) -> report.Section:
    """Rate and memory while one backlog is drained by two processes."""
    workload = Workload(bench.orders(ORDERS))
    drained = bench.drain(worker(2), workload)
    looks = drained.looks
    rows = []
    before = looks[0]
    for share in SHARES:
        look = next(look for look in looks if look.orders >= share * workload.count)
        rows.append((f"{look.orders:,}", f"{rate(before, look):,.0f}", report.mib(look.resident_bytes)))
        before = look
    notes = [
        f"worker × 2, 4 partitions; {drained.orders_per_second:,.0f} orders/s in all, result right;"
        f" peak {report.mib(drained.peak_bytes or 0)} (VmHWM of the larger process)",
        "orders/s: since the row before; memory: of the larger process at that moment",
    ]
    lines = Lines(
        "seconds",
        {
            "orders/s": _rates_over_time(looks),
            "memory of the larger process, MiB": [
                (look.at - looks[0].at, look.resident_bytes / report.MIB) for look in looks
            ],
        },
    )
    head = ("orders decided", "orders/s", "memory")
    title = f"A backlog of {workload.count:,} orders"
    return report.Section("backlog", title, report.Columns(head, rows), notes, lines)


def measure_tables(bench: Bench) -> report.Section:
    """The same drain on empty tables and after years, interleaved."""
    bench.servers.shops.age(bench.screen.say)
    workload = Workload(bench.orders(TABLES_ORDERS))
    full = f"{OLD_ROWS:,} rows in the tables"
    entries = {
        "empty tables": partial(bench.drain, worker(2), workload),
        full: partial(bench.drain, worker(2), workload, after_years=True),
    }
    results = bench.interleaved(entries, orders_a_second)
    ratio = median_rate(results[full]) / median_rate(results["empty tables"])
    notes = [f"after ÷ before = {ratio:.2f}", f"orders: {workload.count:,}"]
    title = f"Large tables, medians of {report.rounds(bench.rounds)}"
    return report.Section("tables", title, report.rates(results), notes)


def _rates_over_time(looks: Sequence[Look]) -> list[tuple[float, float]]:
    """In windows of equal time: a look sees whole batches, so that two in a row say little."""
    width = (looks[-1].at - looks[0].at) / _POINTS
    points, before = [], looks[0]
    for look in looks:
        if look.at - before.at >= width:
            points.append((look.at - looks[0].at, rate(before, look)))
            before = look
    return points
