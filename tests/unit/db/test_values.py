"""What a column takes: every bound from both sides, and by property that nothing else gets through."""

from contextlib import nullcontext
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from decimal import Decimal, localcontext
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from db import values
from db.errors import InvalidValueError

CENT = Decimal("0.01")
MAX_CENTS = 9_999_999_999

any_text = st.text(st.characters(exclude_categories=()))  # lone surrogates too
any_decimal = st.decimals() | st.decimals(-10, 10, places=2) | st.decimals(0, values.MAX_PRICE, places=3)
anything = st.none() | st.booleans() | st.integers() | st.floats() | any_decimal | any_text | st.binary()


def amount(cents: int, more_zeros: int = 0) -> Decimal:
    """So many cents, written with more decimals than two."""
    return Decimal(f"{cents // 100}.{cents % 100:02}{'0' * more_zeros}")


def refusal(check: Any, *arguments: Any) -> str:
    """The message of the refusal, which also carries its field."""
    with pytest.raises(InvalidValueError) as caught:
        check("quantity", *arguments)
    assert caught.value.field == "quantity"
    return str(caught.value)


def accepted(check: Any, *arguments: Any) -> bool:
    """Whether the first of the arguments is taken; it then comes back with the same value."""
    try:
        taken = check("quantity", *arguments)
    except InvalidValueError:
        return False
    assert taken == arguments[0]
    return True


# Text


@given(any_text)
@example("")
@example("\0")
@example("a\ud800")
@example("\udfff")
@example("\ud83d\ude00")  # a pair, but of two characters: no UTF-8 either
@example("\U0010ffff")
def test_text_is_taken_if_it_is_utf8_without_nul_and_only_then(value: str):
    try:
        storable = b"\0" not in value.encode("utf-8")
    except UnicodeEncodeError:
        storable = False
    assert accepted(values.text, value) is storable


@given(any_text | st.text(" \t\n\u3000"), st.integers(1, 2_100))
@example("x", 2_000)
@example("x", 2_001)
@example("é", 1_000)
@example("é", 1_001)
def test_a_name_is_taken_if_it_is_text_that_is_not_blank_and_fits_an_index(value: str, times: int):
    value *= times
    fits = accepted(values.text, value) and bool(value.strip()) and len(value.encode()) <= 2_000
    assert accepted(values.filled_text, value) is fits


@pytest.mark.parametrize("check", [values.text, values.filled_text])
@pytest.mark.parametrize("value", [None, 7, b"bytes", ["a"]])
def test_what_is_no_text_is_refused(check: Any, value: Any):
    assert refusal(check, value) == f"quantity must be text: {value}"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("", "quantity must not be empty: ''"),
        ("\t\n", r"quantity must not be empty: '\t\n'"),
        ("a\0b", r"quantity must be UTF-8 without NUL: b'a\x00b'"),
        ("\ud800", r"quantity must be UTF-8 without NUL: b'\\ud800'"),
        ("x" * 2_001, f"quantity must not be longer than 2,000 bytes: '{'x' * 60}…'"),
    ],
    ids=["empty", "blank", "nul", "surrogate", "long"],
)
def test_a_refused_name_is_reported_in_a_line_that_any_log_can_hold(value: str, message: str):
    answer = refusal(values.filled_text, value)
    assert answer == message
    assert answer.isprintable()


# Integers


@given(anything, st.integers(-5, 5), st.integers(-5, 5))
@example(True, 0, 5)
@example(1.0, 0, 5)
def test_an_integer_is_taken_within_its_bounds_and_nothing_else_is(value: Any, lowest: int, highest: int):
    within = type(value) is int and lowest <= value <= highest
    assert accepted(values.integer, value, lowest, highest) is within


@pytest.mark.parametrize("value", [0, 7, values.MAX_ID])
def test_the_bounds_of_an_integer_are_within(value: int):
    assert values.integer("quantity", value, 0, values.MAX_ID) is value


@pytest.mark.parametrize("value", [-1, 1_001, 2**80, True, False, "7", 7.0, Decimal(7), None])
def test_what_is_no_integer_of_these_bounds_is_refused(value: Any):
    shown = repr(value) if isinstance(value, str) else str(value)
    assert refusal(values.integer, value, 0, 1_000) == f"quantity must be an integer from 0 to 1,000: {shown}"


def test_an_integer_too_long_to_be_written_down_is_refused():
    assert refusal(values.integer, 10**5_000, 0, 1_000).startswith(
        "quantity must be an integer from 0 to 1,000"
    )


# Prices


@given(any_decimal)
@example(Decimal("NaN"))
@example(Decimal("sNaN"))
@example(Decimal("Infinity"))
@example(Decimal("-Infinity"))
@example(Decimal("-0.00"))
@example(Decimal("1E+7"))
@example(Decimal("1E-1000000"))
@example(Decimal("99999999.994"))
@example(Decimal("100000000"))
def test_a_price_that_is_taken_is_the_same_to_the_cent_and_any_other_is_not_money(price: Decimal):
    if accepted(values.price, price):
        assert price == price.quantize(CENT)
        assert 0 <= price <= values.MAX_PRICE
    else:
        in_range = price.is_finite() and 0 <= price <= values.MAX_PRICE
        assert not in_range or price != price.quantize(CENT)


@given(st.integers(0, MAX_CENTS), st.integers(0, 30))
@example(0, 0)
@example(MAX_CENTS, 30)
def test_every_amount_of_cents_is_a_price_whatever_zeros_follow(cents: int, more_zeros: int):
    price = amount(cents, more_zeros)
    assert price * 100 == cents
    assert accepted(values.price, price)


@given(st.integers(0, MAX_CENTS), st.integers(1, 9), st.integers(3, 30))
@example(100, 5, 3)
@example(100, 1, 30)
def test_a_further_decimal_is_refused_and_never_rounded_away(cents: int, digit: int, place: int):
    price = Decimal(f"{amount(cents)}{'0' * (place - 3)}{digit}")
    assert not accepted(values.price, price)


@pytest.mark.parametrize(
    ("price", "message"),
    [
        (2.5, "quantity must be a Decimal: 2.5"),
        (2, "quantity must be a Decimal: 2"),
        (True, "quantity must be a Decimal: True"),
        ("2.50", "quantity must be a Decimal: '2.50'"),
        (None, "quantity must be a Decimal: None"),
        (Decimal("-0.01"), "quantity must be from 0 to 99999999.99: -0.01"),
        (Decimal("100000000.00"), "quantity must be from 0 to 99999999.99: 100000000.00"),
        (Decimal("NaN"), "quantity must be from 0 to 99999999.99: NaN"),
        (Decimal("1.005"), "quantity must have at most 2 decimals: 1.005"),
    ],
)
def test_a_refused_price_says_why(price: Any, message: str):
    assert refusal(values.price, price) == message


@pytest.mark.parametrize("price", [Decimal("123456.780"), Decimal("99999999.99000")])
def test_a_price_is_judged_the_same_whatever_precision_the_caller_calculates_with(price: Decimal):
    with localcontext(prec=5):
        assert accepted(values.price, price)
        assert not accepted(values.price, Decimal("123456.785"))


# UUIDs and times


@given(st.uuids())
def test_a_uuid_is_taken_and_its_text_is_not(value: UUID):
    assert accepted(values.uuid, value)
    assert refusal(values.uuid, str(value)) == f"quantity must be a UUID: '{value}'"


@pytest.mark.parametrize("value", [None, 7, b"\0" * 16, "0" * 32])
def test_what_is_no_uuid_is_refused(value: Any):
    assert refusal(values.uuid, value).startswith("quantity must be a UUID: ")


class Nowhere(tzinfo):
    """A zone that does not know how far it is from UTC."""

    def utcoffset(self, _: datetime | None) -> timedelta | None:
        return None

    def dst(self, _: datetime | None) -> timedelta | None:
        return None

    def tzname(self, _: datetime | None) -> str | None:
        return None


ZONES: Any = st.none() | st.timezones() | st.just(UTC) | st.just(Nowhere())


@given(st.datetimes(timezones=ZONES))
@example(datetime(2026, 11, 23, tzinfo=timezone(timedelta(hours=-23, minutes=-59))))
@example(datetime(1999, 3, 28, 2, tzinfo=ZoneInfo("Arctic/Longyearbyen")))  # skipped there, in spring
def test_a_time_is_taken_if_it_says_how_far_it_is_from_utc(value: datetime):
    if value.utcoffset() is None:
        refusal(values.aware, value)
        return
    taken = values.aware("quantity", value)
    # By their distance from 1970: times that a zone skips or has twice equal none of another zone (PEP 495).
    assert (taken.tzinfo, taken.timestamp()) == (UTC, value.timestamp())


@pytest.mark.parametrize("value", [None, "2026-11-23T10:00:00+00:00", 1_763_892_000, date(2026, 11, 23)])
def test_what_is_no_time_is_refused(value: Any):
    assert refusal(values.aware, value).startswith("quantity must be a datetime with a zone: ")


ENDS = (datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC))
MOMENT = timedelta(microseconds=1)


def test_a_time_that_the_driver_stores_as_infinity_may_only_bound_a_span():
    assert values.span(*ENDS) == ENDS
    for end, beside in zip(ENDS, (ENDS[0] + MOMENT, ENDS[1] - MOMENT), strict=True):
        message = f"quantity must be after datetime.min and before datetime.max: {end}"
        assert refusal(values.stored_time, end) == message
        assert values.stored_time("quantity", beside) == beside
        naive = beside.replace(tzinfo=None)
        assert refusal(values.stored_time, naive).startswith("quantity must be a datetime with a zone: ")


def test_a_span_of_time_has_bounds_that_are_aware_or_none():
    noon = datetime(2026, 11, 23, 12, tzinfo=timezone(timedelta(hours=2)))
    since, until = values.span(noon, None)
    assert (since, until) == (noon, None)
    assert since is not None
    assert since.tzinfo is UTC
    naive = noon.replace(tzinfo=None)
    for name, ends in (("since", (naive, noon)), ("until", (noon, naive))):
        with pytest.raises(InvalidValueError, match=f"{name} must be a datetime with a zone: "):
            values.span(*ends)


@pytest.mark.parametrize("value", [None, 0, 1, "True", "", []])
def test_what_is_neither_true_nor_false_is_no_flag(value: Any):
    assert refusal(values.flag, value).startswith("quantity must be True or False: ")


# Pages


@given(st.integers(-2, 2) | anything, st.integers(-2, 1_002) | anything, st.none() | st.just("key"))
@example(0, 1, "key")
@example(1, 1, "key")
@example(values.MAX_ID, 1_000, None)
def test_a_page_has_its_bounds_and_skips_or_continues_but_never_both(
    skip: Any, limit: Any, after: str | None
):
    fine = (
        type(skip) is int
        and type(limit) is int
        and 0 <= skip <= values.MAX_ID
        and 1 <= limit <= 1_000
        and (after is None or skip == 0)
    )
    with nullcontext() if fine else pytest.raises(InvalidValueError):
        values.page(skip, limit, after)


@pytest.mark.parametrize(
    ("skip", "limit", "after", "message"),
    [
        (-1, 10, None, "skip must be an integer from 0 to 9,223,372,036,854,775,807: -1"),
        (0, 0, None, "limit must be an integer from 1 to 1,000: 0"),
        (0, 1_001, None, "limit must be an integer from 1 to 1,000: 1001"),
        (1, 10, 0, "skip must be 0 where after is given: 1"),
    ],
)
def test_a_bad_page_names_what_is_bad(skip: int, limit: int, after: int | None, message: str):
    with pytest.raises(InvalidValueError) as caught:
        values.page(skip, limit, after)
    assert str(caught.value) == message
