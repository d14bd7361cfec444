from datetime import UTC, datetime

from contracts.events import DeadLetterCode
from worker.dead_letter import dead_letter_headers, fit
from worker.triage import Source

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
        ("failed_at", b"2026-11-23T10:00:00+00:00"),
    ]


def test_the_records_own_headers_come_first_and_untouched_even_odd_ones():
    odd = [("traceparent", b"\xff\xfe"), ("x", None), ("x", b"2")]
    assert headers(*odd)[:3] == odd


def test_a_dead_letter_that_fails_again_says_why_it_failed_now():
    again = headers(("error.code", b"not_json"), ("source.offset", b"7"))
    assert [value for name, value in again if name == "error.code"] == [b"invalid_order"]
    assert [value for name, value in again if name == "source.offset"] == [b"42"]


def test_a_record_that_fits_is_kept_whole():
    value = b"x" * 100_000
    assert fit(value, headers(), 1_000_000) == (value, headers())


def test_a_record_its_topic_cannot_hold_is_cut_and_says_so():
    value, kept = fit(b"x" * 1_000_000, headers(("big", b"y" * 1_000)), 1_000_000)
    assert value is not None
    assert len(value) < 1_000_000
    assert ("value.cut_from_bytes", b"1000000") in kept
    assert ("big", b"y" * 1_000) not in kept
    assert ("source.offset", b"42") in kept


def test_headers_alone_can_be_too_large():
    value, kept = fit(None, headers(("big", b"y" * 2_000_000)), 1_000_000)
    assert value is None
    assert [name for name, _ in kept if name == "big"] == []
