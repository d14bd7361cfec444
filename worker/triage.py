"""Sorts the orders of a batch before any is decided: new, seen before, sent twice, or in conflict. Pure."""

from collections.abc import Mapping, Sequence
from enum import Enum, auto
from typing import NamedTuple, Protocol

from contracts.events import PlainOrder


class Source(NamedTuple):
    """Where a record lies. Two records with the same source are one record, delivered twice."""

    topic: str
    partition: int
    offset: int


class Place(Protocol):
    """Where a record lies: a `Source`, or the record itself."""

    @property
    def topic(self) -> str: ...
    @property
    def partition(self) -> int: ...
    @property
    def offset(self) -> int: ...


class Arrival(NamedTuple):
    """A decoded order and where its record lies."""

    order: PlainOrder
    fingerprint: bytes
    source: Place


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


def triage(arrivals: Sequence[Arrival], known: Mapping[str, Known]) -> list[Standing]:
    """One standing per arrival, in their order. Of one id in a batch, the first arrival counts.

    `known`: what is decided, by the order's key.
    """
    first_in_batch: dict[str, bytes] = {}
    standings = []
    for arrival in arrivals:
        key = arrival.order.key
        row = known.get(key)
        if row is not None:
            standings.append(_against_ledger(arrival, row))
        elif key not in first_in_batch:
            first_in_batch[key] = arrival.fingerprint
            standings.append(Standing.NEW)
        elif first_in_batch[key] == arrival.fingerprint:
            standings.append(Standing.DUPLICATE)
        else:
            standings.append(Standing.CONFLICT)
    return standings


def _against_ledger(arrival: Arrival, row: Known) -> Standing:
    if row.fingerprint != arrival.fingerprint:
        return Standing.CONFLICT
    source = arrival.source
    if (row.source_topic, row.source_partition, row.source_offset) == (
        source.topic,
        source.partition,
        source.offset,
    ):
        return Standing.REDELIVERY
    return Standing.DUPLICATE
