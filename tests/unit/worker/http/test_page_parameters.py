"""What is wrong in the address of a list is named; what is right comes back in the addresses of its pages."""

from collections.abc import Callable
from datetime import UTC, datetime
from urllib.parse import parse_qsl, urlsplit
from uuid import UUID

import pytest

from worker.http.page.parameters import (
    BadParameterError,
    LetterQuery,
    OrderQuery,
    Pairs,
    RejectionQuery,
    letter_query,
    letters_of,
    order_query,
    rejection_query,
)
from worker.operations.dead_letters.letter import Choice

ORDER = UUID("0b6f5c1e-5d0e-4c1e-9d0c-6a4a0c1d2e3f")
TEN, TWELVE = datetime(2026, 11, 23, 10, tzinfo=UTC), datetime(2026, 11, 23, 12, tzinfo=UTC)


def pairs_of(address: str) -> list[tuple[str, str]]:
    return parse_qsl(urlsplit(address).query)


def test_the_address_of_the_next_page_asks_for_the_same_from_there_on():
    orders = OrderQuery(7, "pending", TEN, TWELVE)
    assert order_query(pairs_of(orders.address((TEN, ORDER)))) == OrderQuery(
        7, "pending", TEN, TWELVE, (TEN, ORDER)
    )
    rejected = RejectionQuery("unknown_user")
    assert rejection_query(pairs_of(rejected.address({3: 7, 0: 12}))) == RejectionQuery(
        "unknown_user", {0: 12, 3: 7}
    )
    letters = LetterQuery(Choice(code="invalid_order", path="items.*.quantity"))
    assert letter_query(pairs_of(letters.address({1: 5}))) == LetterQuery(letters.choice, {1: 5})
    assert [query.address() for query in (OrderQuery(), RejectionQuery(), LetterQuery())] == [
        *("orders", "rejections", "dead-letters")
    ]


def test_empty_fields_of_a_form_ask_for_nothing():
    assert order_query([("user", ""), ("status", " "), ("from", ""), ("to", "")]) == OrderQuery()


@pytest.mark.parametrize(
    ("read", "pairs", "says"),
    [
        (order_query, [("usr", "7")], "usr: there is no such parameter; there are user, status"),
        (order_query, [("user", "7"), ("user", "8")], "user: write it once"),
        (order_query, [("user", "0")], "user: write a number from 1"),
        (order_query, [("user", "9" * 19)], "user: write a number from 1"),
        (order_query, [("user", "٣")], "user: write a number from 1"),
        (order_query, [("user", "7.0")], "user: write a number from 1"),
        (order_query, [("status", "lost")], "status: write one of pending, completed, cancelled"),
        (order_query, [("from", "2026-11-23T10:00:00")], "from: write a time with its zone"),
        (order_query, [("to", "soon")], "to: write a time with its zone"),
        (order_query, [("from", "2026-11-23T10:00:00Z"), ("to", "2026-11-23T09:00:00Z")], "to: write a time"),
        (order_query, [("after", "7")], "after: follow a link"),
        (order_query, [("after", f"2026-11-23T10:00:00,{ORDER}")], "after: follow a link"),
        (rejection_query, [("reason", "bad_taste")], "reason: write one of unknown_user"),
        (rejection_query, [("before", "0:1,")], "before: follow a link"),
        (rejection_query, [("before", "0:" + "9" * 19)], "before: follow a link"),
        (letter_query, [("code", "(other)")], "code: write one of empty_value"),
        (letter_query, [("path", "items\u202e")], "path: write a path like"),
        (letter_query, [("path", "x" * 301)], "path: write a path like"),
        (letter_query, [("before", "0:1," * 5_000)], "before: write at most 16,000 characters"),
    ],
)
def test_a_parameter_that_is_wrong_is_named(read: Callable[[Pairs], object], pairs: Pairs, says: str):
    with pytest.raises(BadParameterError) as refused:
        read(pairs)
    assert str(refused.value).startswith(says)


def test_a_group_that_nobody_can_ask_for_has_no_list():
    assert (
        letters_of("invalid_order", "items.*.quantity")
        == "dead-letters?code=invalid_order&path=items.%2A.quantity"
    )
    assert letters_of("not_json", "") == "dead-letters?code=not_json"
    assert [letters_of("(other)", ""), letters_of("not_json", "\x00")] == ["", ""]
