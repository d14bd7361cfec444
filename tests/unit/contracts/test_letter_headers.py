"""What is read out of the headers of a dead letter, which anybody may have written."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.dead_letters import LetterHeaders, LetterSource, read_letter_headers
from contracts.events import DeadLetterCode
from worker.core.dead_letter import dead_letter_headers
from worker.core.triage import Source

NOW = datetime(2026, 11, 23, 10, tzinfo=UTC)
SOUND = {"source.topic": b"placed", "source.partition": b"1", "source.offset": b"7"}
NAMES = [*SOUND, "error.code", "source.timestamp", "failed_at", "value.cut_from_bytes", "redrive.id"]
ABSURD = [b"9" * 5_000, b"9" * 19, b"-1", "٣".encode(), b"1_0", b"0001-01-01T00:00:00+23:59", b"\xff\x00"]


def said(**changed: bytes | None) -> LetterHeaders:
    return read_letter_headers([*(SOUND | {n.replace("_", "."): v for n, v in changed.items()}).items()])


def test_what_a_worker_writes_is_read_back():
    code, source = DeadLetterCode.INVALID_ORDER, Source("placed", 3, 17)
    written = dead_letter_headers(code, "is wrong", "items.0.quantity", source, 5, NOW, [("x", b"\xff")])
    assert read_letter_headers(written) == LetterHeaders(
        "invalid_order", "is wrong", "items.0.quantity", LetterSource("placed", 3, 17), 5, NOW, None, None
    )


def test_of_several_headers_with_one_name_the_last_counts():
    twice = [("source.offset", b"1"), *SOUND.items()]
    assert read_letter_headers(twice).source == LetterSource("placed", 1, 7)


def test_the_largest_numbers_there_can_be_are_read():
    largest = said(source_partition=b"%d" % (2**31 - 1), source_offset=b"%d" % (2**63 - 1)).source
    assert largest == LetterSource("placed", 2**31 - 1, 2**63 - 1)
    assert said(source_timestamp=b"-1").source_timestamp_ms == -1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("source_partition", b"1" * 4_301),
        ("source_partition", b"%d" % 2**31),
        ("source_offset", b"%d" % 2**63),
        ("source_offset", b"1" * 5_000),
        ("source_offset", "²".encode()),
        ("source_offset", b"-1"),
        ("source_offset", b""),
        ("source_offset", None),
        ("source_topic", b""),
        ("source_topic", b"a\x00b"),
        ("source_topic", b"a" * 250),
    ],
)
def test_without_a_place_that_can_be_no_worker_wrote_it(name: str, value: bytes | None):
    assert said(**{name: value}).source is None


@pytest.mark.parametrize(
    "text", [b"", b"yesterday", b"2026-11-23T10:00:00", b"0001-01-01T00:00:00+23:59", b"1" * 5_000]
)
def test_a_time_that_cannot_be_is_none(text: bytes):
    failed_at = read_letter_headers([*SOUND.items(), ("failed_at", text)]).failed_at
    assert failed_at is None


@given(
    st.lists(st.tuples(st.sampled_from(NAMES), st.none() | st.binary(max_size=30) | st.sampled_from(ABSURD)))
)
def test_whatever_was_written_is_read_within_bounds(headers: list[tuple[str, Any]]):
    found = read_letter_headers(headers)
    if found.source:
        assert found.source.partition < 2**31
        assert found.source.offset < 2**63
    assert (found.source_timestamp_ms or 0) < 2**63
    assert found.failed_at is None or found.failed_at.tzinfo is UTC
