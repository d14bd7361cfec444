"""Offsets moved back: no second effect; what is published again is the same bytes under the same event id."""

from uuid import uuid4

import pytest

from tests.support.builders import line, order_value
from tests.support.promises import Scene
from tests.support.worker_process import Workers

pytestmark = pytest.mark.guarantee_2


def test_a_rewind_to_the_start_publishes_stored_outcomes_and_changes_nothing(scene: Scene, workers: Workers):
    scene.shop.stock_up({1: 30})
    ids = [uuid4() for _ in range(50)]
    values: list[bytes | None] = [order_value(line(1), order_id=i) for i in ids]
    scene.place(values + values[:5])
    worker = workers.start()
    scene.wait_until_drained()
    assert worker.stop() == 0
    first = {m.header("ce_id"): (m.key, m.value, m.headers) for m in scene.outcomes()}
    rows = scene.shop.sql("SELECT * FROM order_outcomes ORDER BY order_id")

    scene.rewind("--to-earliest")
    # A new order between the old ones: the rewind decides it as ever.
    scene.place([order_value(line(2), order_id=uuid4())])
    workers.start()
    scene.wait_until_drained()

    again = scene.outcomes()
    assert len(again) == 2 * 50 + 1
    for message in again:
        if message.header("ce_id") in first:
            assert (message.key, message.value, message.headers) == first[message.header("ce_id")]
    assert (
        scene.shop.sql("SELECT * FROM order_outcomes WHERE order_id = ANY($1) ORDER BY order_id", ids) == rows
    )
    assert scene.shop.stock() == {1: 0}
    scene.shop.assert_conserved()
