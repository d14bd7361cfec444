"""What an operator writes for topics, times and durations."""

from datetime import UTC, datetime, timedelta

import pytest

from worker.errors import UsageError
from worker.kafka.offsets import TopicSelection, parse_duration, parse_time, parse_topic


@pytest.mark.parametrize(
    ("text", "selected"),
    [
        ("orders", TopicSelection("orders")),
        ("orders:2", TopicSelection("orders", (2,))),
        ("orders:2,0,2", TopicSelection("orders", (0, 2))),
    ],
)
def test_a_topic_is_written_as_kafkas_tools_take_it(text: str, selected: TopicSelection):
    assert parse_topic(text) == selected


@pytest.mark.parametrize("text", ["", ":", "orders:", "orders:a", "orders:1,", "or ders", "orders:-1"])
def test_what_is_no_topic_is_refused_with_the_form(text: str):
    with pytest.raises(UsageError, match="topic:0,1,2"):
        parse_topic(text)


def test_a_time_becomes_utc():
    assert parse_time("2026-11-23T11:00:00+01:00", "--from") == datetime(2026, 11, 23, 10, tzinfo=UTC)


@pytest.mark.parametrize(
    "text",
    ["", "yesterday", "2026-13-01T00:00:00Z", "0001-01-01T00:00:00+12:00", "0001-01-01T00:00:00Z"],
)
def test_what_is_no_time_is_refused(text: str):
    with pytest.raises(UsageError, match="--from"):
        parse_time(text, "--from")


def test_a_time_without_zone_is_refused():
    for text in ("2026-11-23", "2026-11-23T00:00:00"):
        with pytest.raises(UsageError, match="the time zone is missing; write 2026-11-23T00:00:00Z"):
            parse_time(text, "--from")


@pytest.mark.parametrize(
    ("text", "duration"),
    [
        ("PT2H", timedelta(hours=2)),
        ("P1DT12H", timedelta(days=1, hours=12)),
        ("PT1.5S", timedelta(seconds=1.5)),
        ("P7D", timedelta(days=7)),
    ],
)
def test_a_duration_is_written_as_kafkas_tools_take_it(text: str, duration: timedelta):
    assert parse_duration(text, "--by-duration") == duration


@pytest.mark.parametrize("text", ["", "P", "PT", "2h", "P1M", "-PT1H", "P1DT"])
def test_what_is_no_duration_is_refused(text: str):
    with pytest.raises(UsageError, match="PT2H"):
        parse_duration(text, "--by-duration")
