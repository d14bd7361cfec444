"""Sorts the orders of a batch before any is decided: new, seen before, sent twice, or in conflict. Pure."""

from collections.abc import Mapping, Sequence
from enum import Enum, auto
from typing import NamedTuple, Protocol
from uuid import UUID

from contracts.events import OrderPlaced


class Source(NamedTuple):
    """Where a record lies. Two records with the same source are one record, delivered twice."""

    topic: str
    partition: int
    offset: int


class Arrival(NamedTuple):
    """A decoded order and the record it came in."""

    order: OrderPlaced
    fingerprint: bytes
    source: Source


class Known(Protocol):
    """What the ledger tells about a decided order."""

    @property
    def fingerprint(self) -> bytes: ...
    @property
    def source_topic(self) -> str: ...
    @property
    def source_partition(self) -> int: ...
    @property
    def source_offset(self) -> int: ...


class Standing(Enum):
    """How an arrived order stands to what was decided before it."""

    NEW = auto()  # to be decided now
    REDELIVERY = auto()  # this very record was decided: announce the stored outcome
    DUPLICATE = auto()  # the same order from another record: nothing to do
    CONFLICT = auto()  # the id belongs to another order: dead letter, the first decision stands


def triage(arrivals: Sequence[Arrival], known: Mapping[UUID, Known]) -> list[Standing]:
    """One standing per arrival, in their order. Of one id in a batch, the first arrival counts."""
    first_in_batch: dict[UUID, bytes] = {}
    standings = []
    for arrival in arrivals:
        order_id = arrival.order.order_id
        row = known.get(order_id)
        if row is not None:
            standings.append(_against_ledger(arrival, row))
        elif order_id not in first_in_batch:
            first_in_batch[order_id] = arrival.fingerprint
            standings.append(Standing.NEW)
        elif first_in_batch[order_id] == arrival.fingerprint:
            standings.append(Standing.DUPLICATE)
        else:
            standings.append(Standing.CONFLICT)
    return standings


def _against_ledger(arrival: Arrival, row: Known) -> Standing:
    if row.fingerprint != arrival.fingerprint:
        return Standing.CONFLICT
    if Source(row.source_topic, row.source_partition, row.source_offset) == arrival.source:
        return Standing.REDELIVERY
    return Standing.DUPLICATE
