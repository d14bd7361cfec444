"""Which dead letters are meant, and how they are grouped."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.events import DeadLetterCode
from tests.support.builders import record
from worker.core.dead_letter import REDRIVE_HEADER, dead_letter_headers, own_headers
from worker.core.triage import Source
from worker.operations.dead_letters.letter import (
    MAX_GROUPS,
    OTHER,
    UNMARKED,
    Choice,
    LetterPlace,
    LetterTally,
    general,
    parse_place,
    read_letter,
)

NOW = datetime(2026, 11, 23, 10, tzinfo=UTC)


def letter(
    path: str = "items.0.quantity", *, offset: int = 0, failed_at: datetime = NOW, own: Any = (), **given: Any
) -> Any:
    code = given.get("code", DeadLetterCode.INVALID_ORDER)
    headers = dead_letter_headers(code, "is wrong", path, Source("placed", 1, 7), 0, failed_at, own)
    return read_letter(record(b"", offset=offset, partition=2, headers=tuple(headers)))


def test_a_letter_shows_its_place_its_source_and_why():
    one = letter(offset=17)
    assert (str(one.place), one.source, one.failed_at) == ("2:17", Source("placed", 1, 7), NOW)
    assert (one.code, one.path, one.message) == ("invalid_order", "items.0.quantity", "is wrong")


@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                ["error.code", "source.topic", "source.partition", "source.offset", "failed_at", "x"]
            ),
            st.none() | st.binary(max_size=30) | st.sampled_from([b"9" * 40, b"-1", "٣".encode(), b"1_0"]),
        )
    )
)
def test_whatever_somebody_wrote_into_the_topic_is_a_letter(headers: list[tuple[str, bytes | None]]):
    one = read_letter(record(None, headers=tuple(headers)))
    assert one.source is None or 0 <= one.source.partition < 2**31
    LetterTally().add(one)


def test_a_record_without_our_headers_has_a_code_of_its_own():
    assert (read_letter(record(b"")).code, read_letter(record(b"")).source) == (UNMARKED, None)


@pytest.mark.parametrize("text", ["", "1", "1:", ":1", "1:-1", "1:1:1", "a:1", "1:" + "9" * 19, "²:1"])
def test_a_place_is_partition_and_offset(text: str):
    assert parse_place(text) is None
    assert parse_place("2:17") == LetterPlace(2, 17)


def test_all_that_is_given_has_to_apply():
    one, hour = letter(offset=3), timedelta(hours=1)
    for choice in (
        Choice(),
        Choice(places=frozenset({LetterPlace(2, 3), LetterPlace(0, 0)})),
        Choice(code="invalid_order", path="items.0.quantity"),
        Choice(path="items.*.quantity"),
        Choice(start=NOW, end=NOW + hour),
    ):
        assert choice.takes(one), choice
    for choice in (
        Choice(places=frozenset({LetterPlace(2, 4)})),
        Choice(code="not_json", path="items.0.quantity"),
        Choice(code="invalid_order", path="items.1.quantity"),
        Choice(end=NOW),
        Choice(start=NOW + hour),
    ):
        assert not choice.takes(one), choice


def test_a_letter_that_does_not_show_its_time_is_in_no_span():
    assert not Choice(start=NOW).takes(read_letter(record(b"")))


def test_groups_are_by_code_and_field_the_largest_first():
    tally = LetterTally()
    for offset in range(3):
        tally.add(letter("user_id", offset=offset, failed_at=NOW - timedelta(hours=offset)), "failed")
    tally.add(letter("items.4.quantity", offset=9))
    first, second = tally.groups()
    assert (first.path, first.count, first.sample, dict(first.redriven)) == (
        "user_id",
        3,
        "2:0",
        {"failed": 3},
    )
    assert (first.first_failed_at, first.last_failed_at) == (NOW - timedelta(hours=2), NOW)
    assert second.path == "items.4.quantity", "exact where there is one only"
    tally.add(letter("items.5.quantity"))
    assert tally.groups()[1].path == "items.*.quantity"


def test_no_flood_of_strange_codes_fills_the_memory():
    tally = LetterTally()
    for number in range(MAX_GROUPS + 5):
        tally.add(read_letter(record(b"", headers=(("error.code", b"%d" % number),))))
    assert len(tally.groups()) == MAX_GROUPS + 1
    assert tally.groups()[0].code == OTHER
    assert tally.groups()[0].count == 5


def test_only_numbers_of_items_are_general():
    assert general("items.12.unit_price") == "items.*.unit_price"
    assert general("items.0") == "items.*"
    assert general("order_id2") == "order_id2"


def test_a_redriven_record_has_its_own_headers_and_no_others():
    own = [("x", b"\xff"), ("x", None), ("error", b"mine")]
    one = dead_letter_headers(
        DeadLetterCode.NOT_JSON, "m", "", Source("t", 0, 0), 0, NOW, [*own, (REDRIVE_HEADER, b"1")]
    )
    assert (REDRIVE_HEADER, b"1") in one, "a letter that failed again says which redrive it was"
    assert own_headers(one) == own
