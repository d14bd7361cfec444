"""To where a pruning takes outcomes for published for good."""

import pytest

from db.worker.positions import Acknowledged, PendingBatch
from worker.operations.prune.prune import published_to

LATEST = PendingBatch(published_to=20, pending_to=30, last_timestamp_ms=1, sentinel=None)
BEFORE = PendingBatch(20, 30, 1, None, Acknowledged(10, None))


@pytest.mark.parametrize(
    ("committed", "pending", "expected"),
    [
        (None, BEFORE, 0),
        (40, None, 40),
        (30, LATEST, 20),
        (30, BEFORE, 10),
        (5, BEFORE, 5),
    ],
    ids=["nothing", "no-batch", "one-batch", "two-batches", "moved-back"],
)
def test_what_kafka_may_still_undo_is_not_published_for_good(
    committed: int | None, pending: PendingBatch | None, expected: int
):
    assert published_to(committed, pending) == expected
