"""What a reconciliation keeps of a record, what it takes for gone, and what it says."""

import re
from datetime import UTC, datetime, timedelta
from uuid import uuid4

from aiokafka import TopicPartition

from contracts.envelope import passed_through
from db.reconciliation import rules
from db.reconciliation.tables import Finding
from tests.support.builders import order_value, record
from worker.kafka.offsets import Bounds
from worker.operations.reconcile.discrepancies import KINDS, discrepancy
from worker.operations.reconcile.reconcile import REMARKS, RESULTS
from worker.operations.reconcile.rows import letter_row, outcome_row, pack_headers, record_row, unpack_headers
from worker.operations.reconcile.spans import (
    CLOCKS_APART,
    InputRead,
    LettersRead,
    OutputRead,
    input_read,
    letters_since,
    outcomes_since,
)

NOW = datetime(2026, 11, 25, tzinfo=UTC)
ZERO, ONE = TopicPartition("out", 0), TopicPartition("out", 1)


def source(**headers: str) -> tuple[tuple[str, bytes | None], ...]:
    named = {"topic": "order-placed", "partition": "1", "offset": "7", "timestamp": "123"} | headers
    return tuple((f"source.{name}", value.encode()) for name, value in named.items())


class TestTraces:
    def test_an_order_keeps_its_id_and_fingerprint_and_anything_else_its_code(self):
        order_id = uuid4()
        kept = record_row(record(order_value(order_id=order_id)), 1_000, with_headers=True)
        assert (kept.order_id, len(kept.fingerprint or b""), kept.code) == (order_id, 16, None)
        refused = record_row(record(b"{"), 1_000, with_headers=True)
        assert (refused.order_id, refused.fingerprint, refused.code) == (None, None, "not_json")

    def test_only_what_a_publication_carries_on_is_kept_of_the_headers(self):
        headers = (("correlation_id", "käse".encode()), ("other", b"\xff"))
        kept = record_row(record(order_value(), headers=headers), 1_000, with_headers=True)
        assert unpack_headers(kept.passed_on) == passed_through(headers)
        assert record_row(record(order_value(), headers=headers), 1_000, with_headers=False).passed_on is None
        assert unpack_headers(pack_headers([])) == []

    def test_an_outcome_is_its_key_and_a_digest(self):
        order_id = uuid4()
        one = outcome_row(record(b"{}", key=str(order_id).encode()), is_confirmation=True)
        assert (one.order_id, len(one.digest), one.republished) == (order_id, 16, False)
        assert outcome_row(record(None, key=b"\xff"), is_confirmation=True).order_id is None
        again = record(b"{}", headers=(("republished", b"true"),))
        assert outcome_row(again, is_confirmation=True).republished

    def test_a_dead_letter_names_its_source_or_counts_for_nothing(self):
        named = letter_row(record(b"", headers=source(), partition=3, offset=9), "order-placed")
        assert named == (1, 7, 123, 3, 9)
        timeless = letter_row(record(b"", headers=source(timestamp="-1")), "order-placed")
        assert timeless is not None
        assert timeless.timestamp_ms == -1
        for wrong in ({"topic": "other"}, {"partition": "x"}, {"offset": "-1"}, {"offset": "9" * 30}):
            assert letter_row(record(b"", headers=source(**wrong)), "order-placed") is None


class TestWhatMayBeGone:
    def test_where_nothing_was_deleted_nothing_is_excused(self):
        assert OutputRead({ZERO: (0, 9)}, frozenset()).complete_since_ms(0) == 0
        assert LettersRead({ZERO: (0, 9)}, frozenset()).complete_from(0) == 0

    def test_what_was_decided_after_the_first_record_that_is_left_must_be_there(self):
        read = OutputRead({ZERO: (5, 9), ONE: (0, 9)}, frozenset({ZERO}), {ZERO: 1_000, ONE: 1})
        clocks = int(CLOCKS_APART.total_seconds() * 1_000)
        assert [read.complete_since_ms(n) for n in (0, 1, 2)] == [1_000 + clocks, 0, 1_000 + clocks]

    def test_of_an_emptied_partition_nothing_can_be_said(self):
        assert OutputRead({ZERO: (5, 5)}, frozenset({ZERO})).complete_since_ms(0) > 10**15
        assert LettersRead({ZERO: (5, 5)}, frozenset({ZERO})).complete_from(0) > 10**15

    def test_of_a_compacted_topic_nothing_can_be_said(self):
        assert OutputRead({ZERO: (0, 9)}, frozenset(), is_compacted=True).complete_since_ms(0) > 10**15
        assert LettersRead({ZERO: (0, 9)}, frozenset(), is_compacted=True).complete_from(0) > 10**15

    def test_dead_letters_of_later_offsets_than_the_first_that_is_left_must_be_there(self):
        read = LettersRead({ZERO: (5, 9)}, frozenset({ZERO}), first_source={0: 40})
        assert read.complete_from(0) == 40


class TestWindow:
    def test_what_is_not_committed_is_not_judged(self):
        read = input_read(
            {ZERO: Bounds(0, 9), ONE: Bounds(0, 9)},
            {ZERO: (0, 9), ONE: (2, 9)},
            {ZERO: 4, ONE: None},
            from_first=True,
        )
        assert read.spans == {ZERO: (0, 4), ONE: (2, 2)}
        assert read.cut == frozenset()

    def test_deleted_records_belong_to_a_window_that_begins_at_the_first_record_left(self):
        bounds, committed = {ZERO: Bounds(5, 9)}, {ZERO: 9}
        assert input_read(bounds, {ZERO: (5, 9)}, committed, from_first=True).cut == {0}
        assert input_read(bounds, {ZERO: (6, 9)}, committed, from_first=False).cut == frozenset()

    def test_outcomes_are_read_from_before_the_first_decision(self):
        assert outcomes_since(NOW, None) is None
        assert outcomes_since(NOW, NOW - timedelta(days=1)) == NOW - CLOCKS_APART
        assert outcomes_since(None, NOW) == NOW - CLOCKS_APART

    def test_dead_letters_are_read_from_before_the_oldest_record_or_from_the_first_on(self):
        past = int(NOW.timestamp() * 1_000) - 5
        since = letters_since(InputRead({}, frozenset(), {0: past, 1: past + 1}), NOW, NOW)
        assert since is not None
        assert since < NOW
        for unknown in ({}, {0: -1}, {0: past + 10**9}):
            assert letters_since(InputRead({}, frozenset(), unknown), NOW, NOW) is None


class TestWords:
    def test_every_code_of_the_rules_has_a_meaning_and_a_fix(self):
        statements = " ".join(v for name, v in vars(rules).items() if name.startswith("JUDGE"))
        named = set(re.findall(r"'([a-z]+(?:_[a-z]+)+)'", statements)) - {
            "total_amount",
            "user_id",
            "product_id",
        }
        named -= {"unit_price", *RESULTS, *REMARKS}
        assert named | {"undecided", "stock_differs"} == set(KINDS)

    def test_a_fix_can_be_run_as_it_stands(self):
        order_id = uuid4()
        for code in KINDS:
            one = discrepancy(Finding(code, "order-placed", 2, 7, order_id, 5, "so"))
            assert not re.search(r"[{}]|None", one.fix), code
            assert one.place == "order-placed-2@7"
        assert (
            "--topic order-placed:2 --to-offset 7"
            in discrepancy(Finding("undecided", "order-placed", 2, 7, order_id, None, "so")).fix
        )
