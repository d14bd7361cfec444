from datetime import UTC, datetime
from uuid import UUID

import pytest

from db.bulk.rows import LedgerRow
from tests.support.builders import line, order, record
from worker.core.triage import Arrival, Standing, triage

pytestmark = [pytest.mark.guarantee_1, pytest.mark.guarantee_3]

ID = UUID(int=1)


def arrival(offset: int, quantity: int = 1, partition: int = 0, order_id: UUID = ID) -> Arrival:
    placed = order(line(1, quantity), order_id=order_id)
    return Arrival(placed, placed.fingerprint(), record(None, partition=partition, offset=offset))


def decided(first: Arrival) -> dict[str, LedgerRow]:
    s = first.record
    at = datetime(2026, 11, 23, tzinfo=UTC)
    row = LedgerRow(ID, "confirmed", first.fingerprint, s.topic, s.partition, s.offset, "{}", at)
    return {str(ID): row}


def test_an_order_without_a_decision_is_new():
    assert triage([arrival(1), arrival(2, order_id=UUID(int=2))], {}) == [Standing.NEW, Standing.NEW]


def test_the_record_that_was_decided_is_a_redelivery():
    assert triage([arrival(5)], decided(arrival(5))) == [Standing.REDELIVERY]


def test_the_same_order_at_another_offset_or_partition_is_a_duplicate():
    known = decided(arrival(5))
    assert triage([arrival(6), arrival(5, partition=1)], known) == [Standing.DUPLICATE, Standing.DUPLICATE]


def test_another_order_under_a_decided_id_is_a_conflict():
    assert triage([arrival(6, quantity=2)], decided(arrival(5))) == [Standing.CONFLICT]


def test_within_a_batch_the_first_arrival_of_an_id_counts():
    batch = [arrival(1), arrival(2), arrival(3, quantity=2)]
    assert triage(batch, {}) == [Standing.NEW, Standing.DUPLICATE, Standing.CONFLICT]


def test_within_a_batch_lines_in_another_order_are_the_same_order():
    one, turned = (order(*items, order_id=ID) for items in ([line(1), line(2)], [line(2), line(1)]))
    batch = [Arrival(o, o.fingerprint(), record(None, offset=n)) for n, o in enumerate((one, turned))]
    assert triage(batch, {}) == [Standing.NEW, Standing.DUPLICATE]


def test_a_redelivery_does_not_hide_the_duplicate_behind_it():
    assert triage([arrival(5), arrival(6)], decided(arrival(5))) == [Standing.REDELIVERY, Standing.DUPLICATE]
