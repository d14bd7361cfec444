"""The metadata of committed offsets."""

import pytest

from worker.kafka.offset_mark import (
    MARK,
    MOVED_BY_REPLAY,
    idle_mark,
    is_unmarked,
    is_workers_mark,
    pending_when_committed,
)


@pytest.mark.parametrize("metadata", [MARK, idle_mark(None), idle_mark(120)])
def test_a_worker_knows_what_a_worker_has_committed(metadata: str):
    assert is_workers_mark(metadata)


@pytest.mark.parametrize("metadata", ["", "by hand", "order-workers", "order-worker-2 5"])
def test_an_offset_without_our_mark_was_moved_by_another_client(metadata: str):
    assert not is_workers_mark(metadata)
    assert is_unmarked(metadata)


def test_a_replay_is_neither_a_workers_commit_nor_a_foreign_one():
    assert not is_workers_mark(MOVED_BY_REPLAY)
    assert not is_unmarked(MOVED_BY_REPLAY)


@pytest.mark.parametrize(
    ("metadata", "pending_to"),
    [(MARK, 130), (idle_mark(120), 120), (idle_mark(None), 0), (idle_mark(500), 130)],
)
def test_an_offset_shows_what_postgresql_knew_when_it_was_committed(metadata: str, pending_to: int):
    assert pending_when_committed(130, metadata) == pending_to
