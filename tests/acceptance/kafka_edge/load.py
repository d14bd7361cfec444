"""Orders of one line, and how many of them are decided."""

from collections.abc import Iterable, Sequence
from uuid import UUID, uuid4

from tests.faults.publishing import publish
from tests.faults.workload import Kind, Record
from tests.support.builders import line, order_value
from tests.support.deadline import eventually
from tests.support.promises import Scene


class Load:
    """Orders that can all be confirmed, placed on a scene whose shop it stocks up."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self.ids: list[UUID] = []
        scene.shop.stock_up({1: 1_000_000})

    def values(self, count: int) -> list[bytes]:
        """New orders, to be placed by the caller."""
        ids = [uuid4() for _ in range(count)]
        self.ids += ids
        return [order_value(line(1), order_id=one) for one in ids]

    def place(self, count: int, *partitions: int, compression: str = "none") -> list[UUID]:
        """So many new orders on each of these partitions."""
        before = len(self.ids)
        for partition in partitions:
            self._scene.place(self.values(count), partition=partition, compression=compression)
        return self.ids[before:]

    def place_one_on_each(self, partitions: int) -> None:
        """A new order on each of so many partitions, by one client."""
        values = self.values(partitions)
        records = [Record(Kind.ORDER, p, None, value, (), None, None) for p, value in enumerate(values)]
        publish(self._scene.kafka, self._scene.topics.order_placed, records)

    def undecided(self, ids: Iterable[UUID] | None = None) -> set[UUID]:
        """Those of them, or of all, that are not in the ledger."""
        asked: Sequence[UUID] = self.ids if ids is None else list(ids)
        decided = self._scene.shop.sql("SELECT order_id FROM order_outcomes WHERE order_id = ANY ($1)", asked)
        return set(asked) - {row["order_id"] for row in decided}

    def wait_until_decided(self, ids: Iterable[UUID] | None = None, seconds: float = 30) -> None:
        asked = self.ids if ids is None else list(ids)
        eventually(
            lambda: not self.undecided(asked),
            seconds,
            lambda: f"{len(self.undecided(asked))} of {len(asked)} are not decided",
        )
