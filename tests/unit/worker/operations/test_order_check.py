"""What would become of the orders of a file, in portions of any size."""

import io
import json
from collections import Counter
from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.plain_order import PlainOrder
from db.bulk.rows import LedgerRow
from db.stock import StockLevel
from tests.support.builders import line, order, order_value
from worker.core.decode import Invalid
from worker.operations.check.seen_orders import Earlier, seen_orders
from worker.operations.check.verdicts import Candidate, ExpectedFate, Verdict, decide, repeated
from worker.operations.place.order_file import decoded, order_lines

LEVELS = {1: StockLevel.of(Decimal("2.50"), 10), 2: StockLevel.of(Decimal("99999999.99"), 10**10)}


def candidate(*items: dict[str, object], earlier: Earlier | None = None, number: int = 1) -> Candidate:
    placed = order(*items)
    return Candidate(number, placed, placed.fingerprint(), earlier)


def fates(verdicts: list[Verdict]) -> list[ExpectedFate]:
    return [fate for fate, _ in verdicts]


@given(
    quantities=st.lists(st.integers(1, 8), min_size=1, max_size=12),
    sizes=st.lists(st.integers(1, 5), min_size=12, max_size=12),
)
def test_portions_decide_what_one_batch_would(quantities: list[int], sizes: list[int]):
    orders = [candidate(line(1, quantity)) for quantity in quantities]
    whole = fates(decide(orders, {1}, LEVELS, Counter()))
    taken: Counter[int] = Counter()
    rest, in_portions = orders, []
    for size in sizes:
        in_portions += fates(decide(rest[:size], {1}, LEVELS, taken))
        rest = rest[size:]
    assert in_portions == whole
    assert taken[1] <= 10


def test_an_order_over_the_bound_of_a_total_takes_nothing_from_those_behind_it():
    too_large = candidate(line(1, 10), *[line(2, 1_000_000)] * 101)
    taken: Counter[int] = Counter()
    verdicts = decide([too_large, candidate(line(1, 10))], {1}, LEVELS, taken)
    assert fates(verdicts) == [ExpectedFate.INVALID, ExpectedFate.CONFIRMED]
    assert verdicts[0].findings[0].code == "invalid_order"
    assert verdicts[0].findings[0].path == "items"
    assert taken == {1: 10}


def test_an_id_that_comes_again_in_the_file_is_a_duplicate_or_a_conflict():
    placed = order(line(1))
    same = Candidate(2, placed, placed.fingerprint(), Earlier(1, placed.fingerprint()))
    other = Candidate(2, placed, placed.fingerprint(), Earlier(1, b"other"))
    assert repeated(same, {}, frozenset()) == Verdict(ExpectedFate.DUPLICATE)
    verdict = repeated(other, {}, frozenset())
    assert verdict
    assert verdict.fate is ExpectedFate.CONFLICT
    assert verdict.findings[0].message == "another order of this id stands in line 1"
    assert repeated(Candidate(1, placed, b"", None), {}, frozenset()) is None


def test_a_rejected_order_has_no_duplicate_unless_reopened_and_confirmed():
    placed = order(line(1))
    same = Candidate(1, placed, placed.fingerprint(), None)
    rejected = ledger_row(placed, "rejected")
    again = ledger_row(order(line(1), order_id=uuid4()), "rejected")
    known = {placed.order_id: rejected}
    for latest, to_reopen in (({}, rejected), ({placed.order_id: again}, again)):
        verdict = repeated(same, known, frozenset(), latest)
        assert verdict
        assert verdict.fate is ExpectedFate.REJECTED_BEFORE
        assert verdict.findings[0].message.endswith(
            f"`order-worker orders reopen --order-id {to_reopen.order_id}`"
        )
        assert "(price_changed)" in verdict.findings[0].message
    confirmed = {placed.order_id: ledger_row(placed, "confirmed")}
    assert repeated(same, known, frozenset(), confirmed) == Verdict(ExpectedFate.DUPLICATE)
    assert repeated(same, confirmed, frozenset()) == Verdict(ExpectedFate.DUPLICATE)
    other = repeated(same._replace(fingerprint=b"other"), known, frozenset())
    assert other
    assert other.fate is ExpectedFate.CONFLICT


def ledger_row(placed: PlainOrder, outcome: str) -> LedgerRow:
    event = json.dumps({"reasons": [{"code": "price_changed"}] * 2} if outcome == "rejected" else {})
    now = datetime(2026, 11, 23, tzinfo=UTC)
    return LedgerRow(placed.order_id, outcome, placed.fingerprint(), "order-placed", 0, 1, event, now)


def test_the_first_of_an_id_is_remembered():
    first, second = uuid4(), uuid4()
    with seen_orders() as seen:
        assert seen.first(first, b"1", 3) is None
        assert seen.first(second, b"2", 4) is None
        assert seen.first(first, b"3", 5) == Earlier(3, b"1")
        assert seen.first(UUID(int=first.int), b"4", 6) == Earlier(3, b"1")


def test_a_line_that_is_too_long_is_one_line_and_the_next_one_keeps_its_number():
    good = order_value(line(1))
    file = io.BytesIO(b"\n".join([good, b"x" * 5_000, b"", good]))
    lines = list(order_lines(file, 1_024))
    assert [(one.number, one.size) for one in lines] == [(1, len(good)), (2, 5_000), (4, len(good))]
    assert "5000 bytes, at most 1024 are allowed" in str(decoded(lines[1], 1_024))


def test_a_value_of_just_the_allowed_size_is_read_whole_whatever_ends_its_line():
    for end in (b"\n", b"\r\n", b""):
        value = b"y" * 1_024
        (one,) = order_lines(io.BytesIO(value + end), 1_024)
        assert (one.value, one.size) == (value, 1_024)


@pytest.mark.parametrize("document", [{"order_id": "x"}, [{"order_id": "x"}]])
def test_a_document_of_several_lines_is_named_where_it_begins(document: object):
    file = io.BytesIO(json.dumps(document, indent=2).encode())
    first = decoded(next(order_lines(file, 1_000)), 1_000)
    assert isinstance(first, Invalid)
    assert "write each order on a line of its own, as jq -c . does" in first.message
