"""Which answers of a broker say something about a partition that they bring nothing of."""

import pytest

from worker.kafka.consuming.buffer import had_room

MIB = 1024 * 1024


@pytest.mark.parametrize(
    ("brought", "expected"),
    [
        ([0, 0], True),
        ([2 * MIB, 0], True),
        ([2 * MIB, 1, 0], False),
        ([3 * MIB, 0], False),
    ],
)
def test_a_full_answer_had_no_room_for_a_batch_of_another_partition(brought: list[int], expected: bool):
    topics = [("order-placed", [(number, 0, b"x" * size or None) for number, size in enumerate(brought)])]
    assert had_room(3 * MIB, topics) is expected
