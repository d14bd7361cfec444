"""From an outcome in a topic back to the rows that it was made with."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest
from aiokafka import ConsumerRecord
from aiokafka.structs import OffsetAndMetadata

from contracts.envelope import REPUBLISHED, decode_passed_on, outcome_headers
from contracts.plain_order import PlainOrder
from db.decision import Confirmed, Decision, InsufficientStock, PriceChanged, Rejected, UnknownUser
from db.reconciliation.restoration import RestoredLetter
from db.statuses import Outcome
from tests.support.builders import line, order, record
from worker.core.outcome import event_json
from worker.operations.restore.lost_outcomes import (
    Behind,
    Event,
    behind,
    letter_row,
    made_up_fingerprint,
    may_be_outcome_of,
    missing_outcome,
    published,
    read_event,
)

NOW = datetime(2026, 11, 23, 10, 0, 1, 234567, tzinfo=UTC)
SOLD = Confirmed(750, ["2.50", "5.00"])
TWO_LINES = (line(1), line(2))


def outcome_of(decided: PlainOrder, decision: Decision = SOLD) -> tuple[Outcome, str]:
    is_rejected = isinstance(decision, Rejected)
    return Outcome.REJECTED if is_rejected else Outcome.CONFIRMED, event_json(decided, decision, NOW)


def event_of(decided: PlainOrder, decision: Decision = SOLD) -> Event:
    event = read_event(*outcome_of(decided, decision))
    assert event is not None
    return event


def in_topic(value: bytes | None, order_id: UUID, **changed: Any) -> ConsumerRecord[Any, Any]:
    key = str(order_id).encode()
    headers = tuple(outcome_headers(key, "order-confirmed", NOW, ()))
    return record(
        value, **{"key": key, "headers": headers, "topic": "order-confirmed", "offset": 9, **changed}
    )


class TestPublished:
    def test_an_outcome_is_kept_with_its_bytes_and_the_time_of_its_decision(self):
        decided = order(*TWO_LINES)
        outcome, text = outcome_of(decided)
        found = published(in_topic(text.encode(), decided.order_id), outcome)
        assert found is not None
        kept = missing_outcome(found)
        assert kept is not None
        assert (kept.order_id, kept.outcome, kept.event) == (decided.order_id, "confirmed", text)
        assert (kept.decided_at, kept.topic, kept.offset, kept.passed_on) == (NOW, "order-confirmed", 9, None)

    def test_an_outcome_is_kept_with_the_headers_that_each_publication_carries_on(self):
        decided = order(*TWO_LINES)
        outcome, text = outcome_of(decided)
        sent = in_topic(text.encode(), decided.order_id)
        sent.headers = (*sent.headers, ("correlation_id", b"c-1"), ("traceparent", b"x"), REPUBLISHED)
        found = published(sent, outcome)
        assert found is not None
        kept = missing_outcome(found)
        assert kept is not None
        assert decode_passed_on(kept.passed_on) == [("correlation_id", b"c-1")]

    @pytest.mark.parametrize(
        "changed",
        [
            {"key": None},
            {"key": b"\xff"},
            {"key": b"no order id"},
            {"headers": ()},
            {"headers": (("ce_id", str(uuid4()).encode()),)},
        ],
        ids=["no key", "key of no text", "key of no order", "no event id", "event id of another"],
    )
    def test_what_no_worker_wrote_is_no_outcome(self, changed: dict[str, Any]):
        assert published(in_topic(b"{}", uuid4(), **changed), Outcome.CONFIRMED) is None

    def test_a_record_without_a_value_is_none(self):
        assert published(in_topic(None, uuid4()), Outcome.CONFIRMED) is None

    @pytest.mark.parametrize(
        ("part", "other"),
        [
            ('"total_amount":"7.50"', '"total_amount":"7.51"'),
            ('"user_id":1', '"user_id":"1"'),
            ('"order_id"', '"id"'),
            ("}", ""),
        ],
    )
    def test_a_value_that_is_no_event_of_a_worker_is_not_kept(self, part: str, other: str):
        decided = order(*TWO_LINES)
        outcome, text = outcome_of(decided)
        found = published(in_topic(text.replace(part, other).encode(), decided.order_id), outcome)
        assert found is not None
        assert missing_outcome(found) is None

    def test_nor_is_the_event_of_another_order(self):
        outcome, text = outcome_of(order(*TWO_LINES))
        found = published(in_topic(text.encode(), uuid4()), outcome)
        assert found is not None
        assert missing_outcome(found) is None


class TestSource:
    def test_an_outcome_may_have_come_of_its_own_order_and_of_none_that_differs(self):
        decided = order(line(1, 1, "2.50"), line(2))
        event = event_of(decided)
        assert may_be_outcome_of(event, decided)
        others = [
            order(line(1, 1, "2.49"), line(2)),
            order(line(1, 2, "2.50"), line(2)),
            order(line(2), line(1, 1, "2.50")),
            order(line(1, 1, "2.50")),
            order(line(1, 1, "2.50"), line(2), user_id=2),
            order(line(1, 1, "2.50"), line(2), placed_at="2026-11-23T10:00:01Z"),
        ]
        assert not any(may_be_outcome_of(event, other) for other in others)

    def test_a_rejection_shows_what_it_is_about(self):
        short = Rejected((InsufficientStock(1, requested=3, available=2),))
        event = event_of(order(line(1), line(1, 2), line(7)), short)
        assert may_be_outcome_of(event, order(line(1, 3)))
        assert not may_be_outcome_of(event, order(line(1, 2)))
        assert not may_be_outcome_of(event, order(line(2, 3)))
        changed = event_of(order(line(1)), Rejected((PriceChanged(1, Decimal("2.00"), Decimal("2.50")),)))
        assert may_be_outcome_of(changed, order(line(1, 9)))
        assert may_be_outcome_of(event_of(order(), Rejected((UnknownUser(),))), order(line(5)))

    def test_the_time_of_the_order_is_an_instant(self):
        event = event_of(order(*TWO_LINES, placed_at="2026-11-23T12:00:00+02:00"))
        assert may_be_outcome_of(event, order(*TWO_LINES, placed_at="2026-11-23T10:00:00Z"))


class TestMadeUpFingerprint:
    def test_a_confirmed_order_whose_buyer_saw_no_prices_is_known_again(self):
        decided = order(*TWO_LINES, placed_at="2026-11-23T12:00:00.5+02:00")
        assert made_up_fingerprint(event_of(decided)) == decided.fingerprint()

    def test_every_other_order_is_taken_for_another_one(self):
        with_price = order(line(1, 1, "2.50"), line(2))
        assert made_up_fingerprint(event_of(with_price)) != with_price.fingerprint()
        rejected = order(line(1))
        made_up = made_up_fingerprint(event_of(rejected, Rejected((UnknownUser(),))))
        assert made_up != rejected.fingerprint()
        assert len(made_up) == 16


class TestLetters:
    def test_a_dead_letter_names_the_record_and_its_time(self):
        assert letter_row(record(b"", headers=letter_headers()), "order-placed") == RestoredLetter(1, 7, 123)
        assert letter_row(
            record(b"", headers=letter_headers(timestamp="-1")), "order-placed"
        ) == RestoredLetter(1, 7, -1)
        assert letter_row(record(b"", headers=letter_headers(timestamp="9" * 5_000)), "order-placed") == (
            RestoredLetter(1, 7, None)
        )

    @pytest.mark.parametrize(
        "changed", [{"topic": "another"}, {"offset": "9" * 18 + "99"}, {"partition": "x"}]
    )
    def test_one_that_names_none_of_this_topic_counts_for_nothing(self, changed: dict[str, str]):
        assert letter_row(record(b"", headers=letter_headers(**changed)), "order-placed") is None


def letter_headers(**changed: str) -> tuple[tuple[str, bytes | None], ...]:
    named = {"topic": "order-placed", "partition": "1", "offset": "7", "timestamp": "123"} | changed
    return tuple((f"source.{name}", value.encode()) for name, value in named.items())


class TestPositions:
    def test_a_partition_is_behind_where_postgresql_knows_less_than_is_committed(self):
        committed = OffsetAndMetadata(50, "order-worker")
        moved = OffsetAndMetadata(90, "")
        idle = OffsetAndMetadata(70, "order-worker 50")  # it had skipped the markers of transactions
        commits = dict.fromkeys(range(4), committed) | {4: moved, 5: None, 6: idle, 7: idle}
        found = behind(commits, {0: 50, 1: 49, 2: 60, 4: 1, 6: 50, 7: 20})
        assert found == [Behind(1, 49, 50), Behind(3, None, 50), Behind(7, 20, 50)]
        assert [one.span for one in found] == [(49, 50), (0, 50), (20, 50)]
