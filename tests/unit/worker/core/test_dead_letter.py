from datetime import UTC, datetime

import pytest
from aiokafka.producer.message_accumulator import BatchBuilder

from contracts.events import DeadLetterCode
from worker.core.dead_letter import (
    Form,
    dead_letter_headers,
    fit,
    is_minimal,
    own_key,
    size_of,
    source_of,
    with_made_up_key,
)
from worker.core.triage import Source

pytestmark = pytest.mark.guarantee_3

AT = datetime(2026, 11, 23, 10, tzinfo=UTC)
SOURCE = Source("order-placed", 3, 42)


def headers(*original: tuple[str, bytes | None]) -> list[tuple[str, bytes | None]]:
    return dead_letter_headers(
        DeadLetterCode.INVALID_ORDER, "is missing", "user_id", SOURCE, 1_795_000_000_000, AT, original
    )


def test_a_dead_letter_says_what_is_wrong_where_it_lay_and_when():
    assert headers() == [
        ("error.code", b"invalid_order"),
        ("error.message", b"is missing"),
        ("error.path", b"user_id"),
        ("source.topic", b"order-placed"),
        ("source.partition", b"3"),
        ("source.offset", b"42"),
        ("source.timestamp", b"1795000000000"),
        ("failed_at", b"2026-11-23T10:00:00Z"),
    ]


def test_the_records_own_headers_come_first_and_untouched_even_odd_ones():
    odd = [("traceparent", b"\xff\xfe"), ("x", None), ("x", b"2")]
    assert headers(*odd)[:3] == odd


def test_a_dead_letter_that_fails_again_says_why_it_failed_now():
    again = headers(("error.code", b"not_json"), ("source.offset", b"7"))
    assert [value for name, value in again if name == "error.code"] == [b"invalid_order"]
    assert [value for name, value in again if name == "source.offset"] == [b"42"]


def form(value: bytes | None = b"x", *own: tuple[str, bytes | None], key: bytes | None = b"key") -> Form:
    return Form(key, value, headers(*own))


def answer(fitted: Form, name: str) -> bytes | None:
    return dict(fitted.headers).get(name)


def test_a_record_that_fits_is_kept_whole():
    whole = form(b"x" * 100_000)
    assert fit(whole, 1_000_000) == whole


def test_the_value_is_cut_first_and_says_so():
    fitted = fit(form(b"x" * 1_000_000, ("mine", b"y" * 1_000)), 1_000_000)
    assert fitted.value
    assert 990_000 < len(fitted.value) < 1_000_000
    assert answer(fitted, "value.cut_from_bytes") == b"1000000"
    assert answer(fitted, "mine") == b"y" * 1_000
    assert answer(fitted, "source.offset") == b"42"


def test_headers_that_take_too_much_room_are_cut_and_the_value_only_as_needed():
    fitted = fit(form(b"x" * 500, ("big", b"y" * 2_000_000), ("x", None)), 1_000_000)
    assert fitted.value == b"x" * 500
    assert (answer(fitted, "big"), answer(fitted, "headers.cut")) == (None, b"2")
    assert answer(fitted, "value.cut_from_bytes") == b"500", "the whole record is to be found at its source"


def test_the_names_of_headers_count_in_bytes():
    name = "\u20ac" * 300
    assert size_of(form(b"", (name, b""))) - size_of(form(b"")) >= 900


@pytest.mark.parametrize("max_bytes", [20_000, 4_000, 1_000, 600])
@pytest.mark.parametrize("value", [b"x" * 30_000, b"", None])
@pytest.mark.parametrize("key", [b"k" * 30_000, b"", None])
def test_a_letter_fits_whatever_its_parts_are(max_bytes: int, value: bytes | None, key: bytes | None):
    own = [(f"h{number}" * 20, b"\xff" * 2_000) for number in range(5)]
    fitted = fit(form(value, *own, key=key), max_bytes)
    assert size_of(fitted) <= max_bytes
    assert source_of(fitted.headers) == SOURCE
    assert answer(fitted, "error.code") == b"invalid_order"
    assert (fitted.value is None, fitted.key is None) == (value is None, key is None)
    builder = BatchBuilder(10**9, 0, is_transactional=True)
    builder.append(timestamp=2**42, key=fitted.key, value=fitted.value, headers=fitted.headers)
    assert size_of(fitted) - 100 < builder.size() <= size_of(fitted)


def test_nothing_more_can_be_cut_of_what_is_cut_to_the_least():
    least = fit(form(b"x" * 1_000, ("mine", b"y" * 1_000)), 1)
    assert is_minimal(least)
    assert not is_minimal(form(b""))


def test_a_key_is_made_up_of_the_source_where_there_is_none():
    keyed = with_made_up_key(form(key=None))
    assert (keyed.key, answer(keyed, "key.made_up")) == (b"order-placed-3-42", b"true")
    assert own_key(keyed.key, keyed.headers) is None
    assert with_made_up_key(form()) == form()
    assert own_key(b"key", form().headers) == b"key"


def test_no_header_of_the_record_hides_where_a_letter_came_from():
    own = [("source.x", b"\xff"), ("source.offset", b"9" * 5_000), ("source.partition", None)]
    assert source_of(headers(*own)) == SOURCE
