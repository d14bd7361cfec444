"""What a run has placed, and what has to become of it."""

from uuid import uuid4

from tests.faults.placed import Placed
from tests.faults.workload import Kind, Record


def order(partition: int) -> Record:
    return Record(Kind.ORDER, partition, None, b"an order", (), uuid4(), None)


def poison(partition: int, code: str = "not_json") -> Record:
    return Record(Kind.POISON, partition, None, b"poison", (), None, code)


def test_a_dead_letter_is_expected_of_each_record_that_is_no_order():
    placed = Placed()
    placed.add([order(0), poison(0), poison(1, "unreadable"), order(1)])
    assert dict(placed.letters) == {("0", "1", "not_json"): 1, ("1", "0", "unreadable"): 1}


def test_orders_beside_the_workload_have_to_be_decided_until_they_are_doomed():
    placed, first, second = Placed(), order(2), order(2)
    placed.add([order(2), order(3)])
    placed.add([first, second], extra=True)
    assert set(placed.orders) == {first.order_id, second.order_id}
    placed.doom(2, range(2, 3))
    assert placed.doomed == {second.order_id: (2, 2)}


def test_a_log_that_is_rewound_continues_from_there():
    placed = Placed()
    placed.add([poison(0), poison(0)])
    placed.cut(0, 1)
    placed.add([poison(0, "too_large"), again := order(0)])
    assert placed.letters["0", "1", "too_large"] == 1
    assert placed.letters["0", "1", "not_json"] == 1
    assert placed.is_cut
    assert placed.turn(0, 2, again.order_id or uuid4()) == 4
    assert placed.turn(0, 1, again.order_id or uuid4()) == -1, "it does not lie there"
