"""What is said of a topic's settings before they hurt."""

from typing import Any

import pytest

from worker.kafka.limits.remarks import LARGEST_OUTCOME_BYTES, Use, remarks
from worker.kafka.limits.topic_limits import TopicLimits

DAY_MS = 86_400_000


def said(use: Use, needed_bytes: int = 0, **limits: Any) -> list[str]:
    return list(remarks("topic", use, TopicLimits(is_read=True, **limits), needed_bytes))


@pytest.mark.parametrize("use", Use)
def test_nothing_is_said_of_sound_settings_or_of_unknown_ones(use: Use):
    assert said(use, 1_000_000, retention_ms=7 * DAY_MS) == []
    assert list(remarks("topic", use, TopicLimits(max_batch_bytes=1, compacted=True), 1_000_000)) == []


@pytest.mark.parametrize("use", Use)
def test_compaction_is_named_with_the_remedy(use: Use):
    (remark,) = said(use, compacted=True, retention_ms=-1)
    assert remark.startswith("topic: compaction ")
    assert remark.endswith(": set cleanup.policy=delete")


@pytest.mark.parametrize(
    ("use", "retention_ms", "least"),
    [(Use.INPUT, DAY_MS - 1, DAY_MS), (Use.OUTCOMES, 0, DAY_MS), (Use.DEAD_LETTERS, DAY_MS, 7 * DAY_MS)],
)
def test_a_short_retention_is_named(use: Use, retention_ms: int, least: int):
    (remark,) = said(use, retention_ms=retention_ms)
    assert f"retention.ms={retention_ms}" in remark
    assert remark.endswith(f"set it to {least} or more")


def test_topics_that_are_too_small_are_named_and_the_input_never_is():
    (remark,) = said(Use.OUTCOMES, max_batch_bytes=LARGEST_OUTCOME_BYTES - 1)
    assert remark.endswith(f"it should be {LARGEST_OUTCOME_BYTES} or more")
    (remark,) = said(Use.DEAD_LETTERS, 2_000, max_batch_bytes=1_999)
    assert remark.endswith("is too small for any dead letter: it should be 2000 or more")
    assert said(Use.INPUT, max_batch_bytes=1_000) == []


@pytest.mark.parametrize("bound", ["before_max_ms", "after_max_ms"])
def test_narrow_bounds_of_time_are_named_unless_the_broker_stamps(bound: str):
    (remark,) = said(Use.OUTCOMES, **{bound: 60_000})
    assert remark.endswith("set message.timestamp.type=LogAppendTime")
    assert said(Use.OUTCOMES, stamped_by_broker=True, **{bound: 60_000}) == []
