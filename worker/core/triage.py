"""Sorts the orders of a batch before any is decided: new, seen before, sent twice, or in conflict. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from enum import Enum, auto
from typing import NamedTuple, Protocol

from contracts.plain_order import PlainOrder
from worker.core.same_order import Known, is_same


class Source(NamedTuple):
    """Where a record is stored. Two records with the same source are one record, delivered twice."""

    topic: str
    partition: int
    offset: int


class Record(Protocol):
    """The attributes of a consumed record that are used. `timestamp`: milliseconds, -1 if it has none."""

    @property
    def topic(self) -> str: ...
    @property
    def partition(self) -> int: ...
    @property
    def offset(self) -> int: ...
    @property
    def timestamp(self) -> int: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Sequence[tuple[str, bytes | None]]: ...


class Arrival(NamedTuple):
    """A decoded order and its record."""

    order: PlainOrder
    fingerprint: bytes
    record: Record


class Arrivals:
    """Orders to be decided together, with the ids of all users and products that they name.

    The ids are gathered order by order, while each order is in the processor's cache: a pass over the whole
    batch took 5 % of the worker's time.
    """

    def __init__(self, arrivals: Iterable[Arrival] = ()) -> None:
        self.all: list[Arrival] = []
        self.keys: set[str] = set()
        self.user_ids: set[int] = set()
        self.product_ids: set[int] = set()
        for arrival in arrivals:
            self.add(arrival)

    def add(self, arrival: Arrival) -> None:
        key, user_id, _, _, items = arrival.order
        self.all.append(arrival)
        self.keys.add(key)
        self.user_ids.add(user_id)
        for product_id, _, _ in items:
            self.product_ids.add(product_id)


class Standing(Enum):
    """What an arrived order is, compared with what was decided before it."""

    NEW = auto()  # to be decided now
    REDELIVERY = auto()  # this very record was decided: publish the stored outcome
    DUPLICATE = auto()  # the same order from another record: nothing to do
    CONFLICT = auto()  # the id was decided for another order: dead letter, that decision stands


def triage(arrivals: Sequence[Arrival], known: Mapping[str, Known]) -> list[Standing]:
    """One result per arrival, in their order. Of one id in a batch, the first arrival counts.

    `known`: what is decided, by the order's key.
    """
    first_in_batch: dict[str, Arrival] = {}
    standings = []
    for arrival in arrivals:
        key = arrival.order.key
        row = known.get(key)
        if row is not None:
            standings.append(_against_ledger(arrival, row))
        elif key not in first_in_batch:
            first_in_batch[key] = arrival
            standings.append(Standing.NEW)
        elif _is_repeat(arrival, first_in_batch[key]):
            standings.append(Standing.DUPLICATE)
        else:
            standings.append(Standing.CONFLICT)
    return standings


def _is_repeat(arrival: Arrival, first: Arrival) -> bool:
    if arrival.fingerprint == first.fingerprint:
        return True
    return arrival.order.sorted_fingerprint() == first.order.sorted_fingerprint()


def _against_ledger(arrival: Arrival, row: Known) -> Standing:
    if not is_same(arrival.order, arrival.fingerprint, row):
        return Standing.CONFLICT
    record = arrival.record
    if (row.source_topic, row.source_partition, row.source_offset) == (
        record.topic,
        record.partition,
        record.offset,
    ):
        return Standing.REDELIVERY
    return Standing.DUPLICATE
