"""The state of each partition at the moment of a scrape: an age grows also while nothing happens."""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector


class PartitionState(NamedTuple):
    """`owned`: None if it is not assigned to this worker. Times are seconds, 0 if nothing waits."""

    number: int
    owned: bool | None
    oldest_seconds: float
    stuck_seconds: float


class PartitionStates(Collector):
    """`states` is called at each scrape, and sends no request."""

    def __init__(self, states: Callable[[], Iterable[PartitionState]]) -> None:
        self._states = states

    def collect(self) -> Iterator[GaugeMetricFamily]:
        owned = _of_partitions("order_worker_partition_owned", "1 where this worker holds the lease")
        oldest = _of_partitions(
            "order_worker_oldest_order_seconds", "Age of the oldest order whose outcome is not published"
        )
        stuck = _of_partitions(
            "order_worker_stuck_seconds", "Time for which orders wait without any being published"
        )
        for state in self._states():
            label = [str(state.number)]
            if state.owned is not None:
                owned.add_metric(label, float(state.owned))
            oldest.add_metric(label, state.oldest_seconds)
            stuck.add_metric(label, state.stuck_seconds)
        yield from (owned, oldest, stuck)


def _of_partitions(name: str, description: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, description, labels=["partition"])
