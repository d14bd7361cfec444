"""Where a partition continues, for each way in which Kafka, PostgreSQL and the log can disagree."""

import pytest
from aiokafka import TopicPartition
from aiokafka.structs import OffsetAndMetadata

from db.worker.positions import PendingBatch
from worker.kafka.offset_mark import MARK, MOVED_BY_REPLAY, idle_mark
from worker.pipeline.resume import (
    Case,
    Evidence,
    case_of,
    database_lost,
    decided_by_another_group,
    deleted_before_decided,
    is_cut,
    may_lie_in_log,
)

pytestmark = [pytest.mark.guarantee_2, pytest.mark.guarantee_3]

PLACED = TopicPartition("placed", 0)


def pending(published_to: int = 80, pending_to: int = 100) -> PendingBatch:
    return PendingBatch(published_to, pending_to, 1_000, None)


def commit(offset: int, metadata: str = MARK) -> OffsetAndMetadata:
    return OffsetAndMetadata(offset, metadata)


def evidence(
    committed: OffsetAndMetadata | None = None,
    known: PendingBatch | None = None,
    first: int = 0,
    end: int = 200,
    is_known_log: bool = True,
) -> Evidence:
    return Evidence(committed, known, first, end, is_known_log)


@pytest.mark.parametrize(
    ("found", "case"),
    [
        (evidence(), Case.COMMITTED),
        (evidence(commit(100), pending()), Case.COMMITTED),
        (evidence(commit(99), pending()), Case.LOST_COMMIT),
        (evidence(commit(79), pending()), Case.LOST_COMMIT),
        (evidence(None, pending()), Case.LOST_COMMIT),
        (evidence(commit(10, ""), pending()), Case.COMMITTED),
        (evidence(commit(80, ""), pending()), Case.COMMITTED),
        (evidence(commit(81, ""), pending()), Case.MOVED_ON),
        (evidence(commit(150, ""), pending()), Case.MOVED_ON),
        (evidence(commit(150, MOVED_BY_REPLAY), pending()), Case.COMMITTED),
        (evidence(commit(150, idle_mark(100)), pending()), Case.COMMITTED),
        (evidence(commit(150, ""), None), Case.COMMITTED),
        (evidence(commit(201), pending()), Case.OTHER_LOG),
        (evidence(commit(201, ""), pending()), Case.OTHER_LOG),
        (evidence(commit(201, ""), None), Case.OTHER_LOG),
        (evidence(commit(100), pending(), is_known_log=False), Case.OTHER_LOG),
        (evidence(None, pending(), is_known_log=False), Case.OTHER_LOG),
        (evidence(commit(200), pending(190, 200)), Case.COMMITTED),
    ],
)
def test_the_evidence_makes_one_case(found: Evidence, case: Case):
    assert case_of(found) is case


def test_the_last_decided_record_is_looked_at_only_where_it_can_lie():
    assert [may_lie_in_log(pending(pending_to=100), *log) for log in ((0, 100), (99, 200))] == [True, True]
    assert [may_lie_in_log(pending(pending_to=100), *log) for log in ((100, 200), (0, 99))] == [False, False]


def test_a_log_is_cut_where_it_ends_before_what_was_decided():
    assert is_cut(pending(pending_to=100), 99)
    assert not is_cut(pending(pending_to=100), 100)


@pytest.mark.parametrize(
    ("found", "resume_at", "deleted"),
    [
        (evidence(commit(100), pending(), first=150), 100, (100, 150)),
        (evidence(commit(100), pending(), first=100), 100, None),
        (evidence(commit(10, ""), pending(published_to=80), first=150), 10, (80, 150)),
        (evidence(commit(10, ""), pending(published_to=80), first=60), 10, None),
        (evidence(commit(100), None, first=150), 100, (100, 150)),
    ],
)
def test_only_what_nobody_decided_counts_as_deleted_before_it(
    found: Evidence, resume_at: int, deleted: tuple[int, int] | None
):
    assert deleted_before_decided(found, resume_at) == deleted


def test_a_database_that_knows_less_than_was_committed_is_named_with_the_command():
    answer = database_lost("placed", {PLACED: commit(120)}, {0: pending(pending_to=100)})
    assert answer is not None
    assert "placed-0 (100, not 120)" in answer
    assert "order-worker ledger restore" in answer


@pytest.mark.parametrize(
    ("committed", "known"),
    [
        (commit(100), {0: pending(pending_to=100)}),
        (commit(80), {0: pending(pending_to=100)}),
        (commit(120, ""), {0: pending(pending_to=100)}),
        (commit(120, idle_mark(100)), {0: pending(pending_to=100)}),
        (commit(5, idle_mark(None)), {}),
        (None, {}),
    ],
)
def test_a_database_that_knows_as_much_is_not_lost(
    committed: OffsetAndMetadata | None, known: dict[int, PendingBatch]
):
    assert database_lost("placed", {PLACED: committed}, known) is None


@pytest.mark.parametrize("committed", [commit(120), commit(130, idle_mark(120))])
def test_a_database_without_a_row_has_lost_all_that_was_committed(committed: OffsetAndMetadata):
    assert database_lost("placed", {PLACED: committed}, {}) is not None


def test_a_new_group_does_not_begin_where_another_one_has_decided():
    answer = decided_by_another_group(PLACED, evidence(), ["old"], "new")
    assert answer is not None
    assert "replay --from-group old" in answer


@pytest.mark.parametrize("found", [evidence(commit(0)), evidence(None, pending())])
def test_a_group_that_is_not_new_continues_beside_others(found: Evidence):
    assert decided_by_another_group(PLACED, found, ["old"], "new") is None


def test_a_new_group_begins_where_nobody_has_decided():
    assert decided_by_another_group(PLACED, evidence(), [], "new") is None
