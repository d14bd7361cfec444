"""What is known of a topic: by its settings, and by what it refused."""

from collections.abc import Iterable, Mapping

import pytest

from worker.kafka.limits.output_limits import OutputLimits
from worker.kafka.limits.refusals import RefusalRemedy
from worker.kafka.limits.topic_limits import LEAST_BYTES, TopicLimits, learned, parse_limits

NOW = 1_800_000_000_000
HOUR = 3_600_000


def test_settings_become_limits():
    limits = parse_limits(
        {
            "max.message.bytes": "200000",
            "segment.bytes": "1073741824",
            "message.timestamp.type": "LogAppendTime",
            "message.timestamp.before.max.ms": "9223372036854775807",
            "message.timestamp.after.max.ms": "3600000",
            "cleanup.policy": "compact,delete",
            "retention.ms": "60000",
            "min.insync.replicas": "2",
        }
    )
    assert limits == TopicLimits(
        max_batch_bytes=200_000,
        stamped_by_broker=True,
        after_max_ms=HOUR,
        compacted=True,
        needs_key=True,
        retention_ms=60_000,
        min_in_sync=2,
        is_read=True,
    )


def test_a_batch_is_never_larger_than_a_segment():
    assert parse_limits({"max.message.bytes": "5000000", "segment.bytes": "1048576"}).max_batch_bytes == 2**20


@pytest.mark.parametrize("settings", [{}, {"max.message.bytes": "many", "cleanup.policy": "delete"}])
def test_what_is_missing_or_odd_is_as_by_default(settings: dict[str, str]):
    assert parse_limits(settings) == TopicLimits(is_read=True)


@pytest.mark.parametrize(
    ("limits", "timestamp_ms", "taken"),
    [
        (TopicLimits(), 0, True),
        (TopicLimits(before_max_ms=HOUR), NOW, True),
        (TopicLimits(before_max_ms=HOUR), NOW - HOUR + 60_000, True),
        (TopicLimits(before_max_ms=HOUR), NOW - HOUR + 20_000, False),
        (TopicLimits(before_max_ms=1_000), NOW - 100, True),
        (TopicLimits(before_max_ms=1_000), NOW - 600, False),
        (TopicLimits(after_max_ms=HOUR), NOW + HOUR, True),
        (TopicLimits(after_max_ms=HOUR), NOW + HOUR + 1, False),
        (TopicLimits(own_time=True), NOW - 1, False),
        (TopicLimits(stamped_by_broker=True, before_max_ms=1, own_time=True), 0, True),
    ],
)
def test_a_time_that_would_be_refused_on_arrival_is_not_taken(
    limits: TopicLimits, timestamp_ms: int, taken: bool
):
    assert limits.takes_time(timestamp_ms, NOW) is taken


@pytest.mark.parametrize("remedy", [RefusalRemedy.SMALLER_BATCHES, RefusalRemedy.ALONE, RefusalRemedy.CUT])
def test_what_was_refused_is_halved_and_never_grows(remedy: RefusalRemedy):
    assert learned(TopicLimits(), remedy, 1_000).max_batch_bytes == 500
    assert learned(TopicLimits(max_batch_bytes=400), remedy, 1_000).max_batch_bytes == 400
    assert learned(TopicLimits(), remedy, 1).max_batch_bytes == LEAST_BYTES


class Settings:
    """Stands in for Kafka's answers; None: we may not read them."""

    def __init__(self, limits: TopicLimits | None) -> None:
        self.limits = limits

    async def __call__(self, topics: Iterable[str]) -> Mapping[str, TopicLimits]:
        return {} if self.limits is None else dict.fromkeys(topics, self.limits)


async def test_a_refusal_that_the_settings_explain_needs_no_guessing():
    settings = Settings(TopicLimits(is_read=True))
    known = OutputLimits(["out"], settings)
    await known.read()
    settings.limits = TopicLimits(max_batch_bytes=200_000, is_read=True)
    await known.learn("out", RefusalRemedy.SMALLER_BATCHES, 500_000)
    assert known.of("out").max_batch_bytes == 200_000


@pytest.mark.parametrize("answer", [None, TopicLimits(is_read=True)])
async def test_what_settings_do_not_explain_is_learned_bit_by_bit(answer: TopicLimits | None):
    known = OutputLimits(["out"], Settings(answer))
    for refused in (512_000, 256_000, 128_000):
        await known.learn("out", RefusalRemedy.SMALLER_BATCHES, refused)
        assert known.of("out").max_batch_bytes == refused // 2
    await known.learn("out", RefusalRemedy.OWN_TIME, 64_000)
    assert known.of("out") == TopicLimits(max_batch_bytes=64_000, own_time=True, is_read=answer is not None)


@pytest.mark.parametrize(("answer", "left"), [(TopicLimits(is_read=True), 1_048_588), (None, 500)])
async def test_what_was_learned_is_forgotten_once_settings_are_read_again(
    answer: TopicLimits | None, left: int
):
    known = OutputLimits(["out"], Settings(answer))
    await known.learn("out", RefusalRemedy.SMALLER_BATCHES, 1_000)
    await known.read()
    assert known.of("out").max_batch_bytes == left


async def test_reading_that_fails_changes_nothing():
    async def fail(_topics: Iterable[str]) -> Mapping[str, TopicLimits]:
        raise OSError("away")

    known = OutputLimits(["out"], fail)
    await known.read()
    await known.learn("out", RefusalRemedy.MADE_UP_KEY, 10)
    assert known.of("out") == TopicLimits(needs_key=True)
