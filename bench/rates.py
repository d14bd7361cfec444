"""Orders per second of each contender, in rounds."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from bench import peer, report
from bench.contenders import CONCURRENCY, baseline, worker
from bench.drain import PARTITIONS, Drained
from bench.limit import CONNECTIONS, Limit
from bench.peer import Peer
from bench.plot import Bars
from bench.run import Bench, median_rate, orders_a_second
from bench.workload import Workload

# 38 batches of 8,000 between two processes. Of 120,000 the end, where one is done and the other decides its
# last batch, was a good part: two cores had 0.17 to spare, where longer drains have 0.1.
ORDERS: Final = 300_000
BASELINE_ORDERS: Final = 1_500
CONCURRENT_ORDERS: Final = 4_000
PROCESSES: Final = (1, 2)

_LEGEND: Final = (
    "× baseline: of the medians; peak: VmHWM of the largest process;"
    " client, Postgres, Kafka, other: CPU in cores"
)


def measure(bench: Bench, peers: Sequence[Peer]) -> report.Section:
    """The table of rates, with the ratios that are looked for below it."""
    workload = Workload(bench.orders(ORDERS))
    limit = Limit(bench.servers.shops)
    slow = {baseline(): BASELINE_ORDERS, baseline(CONCURRENCY): CONCURRENT_ORDERS}
    entries: dict[str, Callable[[], Drained]] = {
        contender.name: partial(bench.drain, contender, Workload(bench.orders(orders)))
        for contender, orders in slow.items()
    }
    workers = [worker(count) for count in PROCESSES]
    plain = worker(PROCESSES[-1], plain_role=True)
    entries |= {
        contender.name: partial(bench.drain, contender, workload, afterwards=limit.remember)
        for contender in workers
    }
    for one in peers:
        own = Workload(bench.orders(one.orders)) if one.orders else workload
        entries[one.name] = partial(peer.measure, bench, one, own)
    entries[plain.name] = partial(bench.drain, plain, workload)
    with bench.default_postgres() as untuned:
        name = f"{workers[-1].name}, PostgreSQL's defaults"
        entries[name] = partial(untuned.drain, workers[-1], workload)
        results = bench.interleaved(entries, orders_a_second)
    for lookups in (False, True):
        for connections in CONNECTIONS:
            name = f"limit, {connections} connection{'s' * (connections > 1)}{', lookups' * lookups}"
            one_limit = partial(_limit, limit, connections, lookups)
            results |= bench.interleaved({name: one_limit}, orders_a_second)
    rates = {name: median_rate(drains) for name, drains in results.items()}
    notes = [
        *_ratios(rates, [each.name for each in (*workers, plain)], [one.name for one in peers]),
        f"orders: {workload.count:,} each, the baselines {BASELINE_ORDERS * bench.scale:,.0f} and"
        f" {CONCURRENT_ORDERS * bench.scale:,.0f}; 1 to 5 items of 5,000 products, 10,000 users,"
        f" {PARTITIONS} partitions",
        _LEGEND,
        "limit: COPY of exactly the rows the worker writes, nothing else running",
        "plain role, lookups: may not set session_replication_role: PostgreSQL looks up each foreign key",
    ]
    title = f"Backlog drain, end to end, medians of {report.rounds(bench.rounds)}"
    bars = [(name, min(r), median_rate(d), max(r)) for name, d in results.items() if (r := _rates(d))]
    return report.Section("rates", title, report.rates(results), notes, Bars(bars, "orders/s"))


def _limit(limit: Limit, connections: int, lookups: bool) -> Drained:
    return Drained(limit.orders_per_second(connections, lookups=lookups), None, None)


def _rates(drains: Sequence[Drained]) -> list[float]:
    return [drained.orders_per_second for drained in drains]


def _ratios(rates: dict[str, float], workers: Sequence[str], peers: Sequence[str]) -> list[str]:
    one, two, plain = workers
    limit = max(rate for name, rate in rates.items() if name.startswith("limit"))
    of_plain = max(rate for name, rate in rates.items() if name.endswith("lookups"))
    ratios = {
        f"{two} ÷ baseline": rates[two] / next(iter(rates.values())),
        **{f"{two} ÷ {name}": rates[two] / rates[name] for name in peers},
        f"{two} ÷ limit": rates[two] / limit,
        f"{plain} ÷ its limit": rates[plain] / of_plain,
        f"{one} ÷ {two}": rates[one] / rates[two],
    }
    return ["; ".join(f"{name} = {ratio:,.2f}" for name, ratio in ratios.items())]
