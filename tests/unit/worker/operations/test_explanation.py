"""What the facts about an order amount to, in one sentence."""

import io
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from aiokafka import TopicPartition
from rich.console import Console

from contracts.envelope import reopened_id
from contracts.events import Reason, ReasonCode
from db.worker.skips import SkipKind, SkippedSpan
from tests.support.builders import line, order_value, record
from worker.kafka.offsets import Bounds
from worker.operations.explain.explanation import explained
from worker.operations.explain.facts import dead_letters, inputs, outcomes, superseded, time_of
from worker.operations.explain.order_facts import (
    DeadLetterRecord,
    Decision,
    Facts,
    InputRecord,
    Line,
    LinkedOrder,
    OutcomeRecord,
    Place,
    RecordStanding,
    State,
    StoredOrder,
    Unread,
)
from worker.operations.explain.order_records import OrderRecords, first_of, homes, last_of, places, unread
from worker.operations.explain.sections import sections
from worker.operations.explain.terminal import MOST_ROWS, explanation_screen

ORDER = UUID("0b6f5c1e-5d0e-4c1e-9d0c-6a4a0c1d2e3f")
NOW = datetime(2026, 11, 23, 10, tzinfo=UTC)
SOURCE = Place("order-placed", 2, 17)
ZERO, ONE = TopicPartition("order-placed", 0), TopicPartition("order-placed", 1)


def facts(**fields: Any) -> Facts:
    return Facts(**{"order_id": ORDER, "group_id": "workers", "members": 1, "committed": {2: 18}, **fields})


def confirmed(*lines: Line) -> Decision:
    sold = lines or (Line(1, 2, Decimal("2.50")),)
    return Decision("confirmed", NOW, SOURCE, 1, NOW, Decimal("5.00"), sold, (), None)


def rejected(*reasons: Reason) -> Decision:
    return Decision("rejected", NOW, SOURCE, 1, NOW, None, (), reasons, False)


def outcome(offset: int, *, republished: bool = False, tombstone: bool = False) -> OutcomeRecord:
    place = Place("order-confirmed", 2, offset)
    return OutcomeRecord(place, NOW, "confirmed", "", republished, not tombstone, tombstone)


def input_record(standing: RecordStanding, offset: int = 20) -> InputRecord:
    return InputRecord(Place("order-placed", 2, offset), NOW, standing, "", 1, ())


def skip(
    partition: int, first: int, end: int | None = None, kind: SkipKind = "skipped", hours: int = 0
) -> SkippedSpan:
    when = NOW + timedelta(hours=hours)
    return SkippedSpan(partition, first, first + 1 if end is None else end, "ada", "bad disk", when, kind)


def letter(code: str = "not_json") -> DeadLetterRecord:
    return DeadLetterRecord(Place("order-placed-dlt", 2, 5), NOW, code, "Invalid JSON", "", SOURCE, NOW)


def stored(status: str) -> StoredOrder:
    return StoredOrder(status, 1, Decimal("5.00"), NOW, NOW, ())


def test_what_became_of_a_confirmed_order_since_comes_first():
    answer = facts(decision=confirmed(), outcomes=(outcome(15),))
    for status, beginning in (("pending", "Confirmed at "), ("completed", "Confirmed at ")):
        assert explained(replace(answer, order=stored(status))).summary.startswith(beginning)
    cancelled = explained(replace(answer, order=stored("cancelled")))
    assert (cancelled.state, cancelled.summary[:29]) == (State.CONFIRMED, "Cancelled since. Confirmed at")
    assert explained(answer).summary.startswith("Gone from the table of orders: deleted since")


def test_a_pruned_decision_says_so_and_makes_nothing_up():
    for state, words in (
        (State.REJECTED, "; its reasons were pruned. It was "),
        (State.CONFIRMED, ", and no"),
    ):
        decision = Decision(state.value, NOW, SOURCE, None, None, None, (), (), None, pruned=True)
        said = explained(facts(decision=decision, order=stored("pending")))
        assert said.state is state
        assert f"from {SOURCE}{words}" in said.summary
        assert said.summary.endswith("no publication is there any more: it was deleted (retention).")
        shown = io.StringIO()
        Console(file=shown, width=200).print(explanation_screen(said))
        assert "its event was pruned (`ledger prune`)" in shown.getvalue()


def test_an_order_that_was_placed_again_names_the_other_one():
    answer = facts(decision=rejected(Reason(code=ReasonCode.UNKNOWN_USER)))
    new, old = LinkedOrder(UUID(int=2), None, "ada", NOW, True), LinkedOrder(UUID(int=1), "rejected")
    assert explained(replace(answer, reopened_as=new)).summary.endswith(
        f" It was placed again as {new.order_id} without the prices that the buyer saw by ada at"
        " 2026-11-23 10:00:00.000Z, which is not decided yet."
    )
    lost = LinkedOrder(UUID(int=2), "confirmed")
    assert explained(replace(answer, reopened_as=lost, supersedes=old)).summary.endswith(
        f" It supersedes {old.order_id}, which was rejected."
        f" It was placed again as {lost.order_id}, which was confirmed."
    )


def test_a_header_links_an_order_with_that_whose_id_makes_its_own():
    new = str(reopened_id(ORDER)).encode()
    header = ("supersedes", str(ORDER).encode())
    assert superseded([record(b"", key=new), record(b"", key=new, headers=(header,))]) == ORDER
    assert superseded([record(b"", key=b"another", headers=(header,))]) is None
    assert superseded([record(b"", key=new, headers=(("supersedes", b"\xff"),))]) is None


@pytest.mark.parametrize(
    ("found", "state", "sentence"),
    [
        (
            facts(decision=confirmed(), outcomes=(outcome(15),)),
            State.CONFIRMED,
            "Confirmed at 2026-11-23 10:00:00.000Z from order-placed-2@17,"
            " published once at order-confirmed-2@15.",
        ),
        (
            facts(decision=confirmed(), outcomes=(outcome(15), outcome(90, republished=True))),
            State.CONFIRMED,
            "published 2 times: at order-confirmed-2@15, order-confirmed-2@90 (republished).",
        ),
        (
            facts(decision=confirmed(), outcomes=(outcome(15), outcome(16, tombstone=True))),
            State.CONFIRMED,
            "published once at order-confirmed-2@15; a tombstone is at order-confirmed-2@16, which no worker",
        ),
        (
            facts(decision=confirmed(), outcomes=(outcome(16, tombstone=True),), committed={2: 18}),
            State.CONFIRMED,
            "or never published; a tombstone is at order-confirmed-2@16, which no worker writes.",
        ),
        (
            facts(decision=confirmed(), committed={2: 17}),
            State.CONFIRMED,
            "not published yet: the group workers has not committed past that record.",
        ),
        (
            facts(decision=confirmed()),
            State.CONFIRMED,
            "and no publication is there any more: it was deleted (retention), or never published.",
        ),
        (
            facts(decision=confirmed(), unread=(Unread("order-confirmed", 2, 0, 9),)),
            State.CONFIRMED,
            "and no publication is in what was read.",
        ),
        (
            facts(
                decision=rejected(*[Reason(code=ReasonCode.UNKNOWN_PRODUCT, product_id=n) for n in range(5)])
            ),
            State.REJECTED,
            "there was no product 2 and 2 reasons more. It was",
        ),
        (
            facts(inputs=(input_record(RecordStanding.WAITING, 1218),), dead_letters=(letter(),)),
            State.WAITING,
            "Waiting: its record is at order-placed-2@1218;"
            " 1,200 offsets before it wait for the group workers as well.",
        ),
        (
            facts(inputs=(input_record(RecordStanding.WAITING),), committed={2: None}, members=0),
            State.WAITING,
            "nothing in that partition was ever decided by the group workers, in which nobody is now.",
        ),
        (
            facts(inputs=(input_record(RecordStanding.PASSED_OVER, 3),)),
            State.PASSED_OVER,
            "past its record at order-placed-2@3, and no dead letter of it is there:"
            " a replay from there would decide it.",
        ),
        (
            facts(dead_letters=(letter(),)),
            State.DEAD_LETTER,
            "Dead letter because Invalid JSON (not_json): order-placed-dlt-2@5, from order-placed-2@17.",
        ),
        (
            facts(inputs=(input_record(RecordStanding.PASSED_OVER, 3),), skips=(skip(2, 3),)),
            State.PASSED_OVER,
            "Not decided: its record at order-placed-2@3 could not be read, and was skipped by ada"
            " at 2026-11-23 10:00:00.000Z: bad disk. A replay from there would decide it.",
        ),
        (
            facts(skips=(skip(0, 10, 22),)),
            State.NOT_FOUND,
            "Not decided: no record of it is in the input or among the dead letters; it may have been among"
            " 12 offsets that ada skipped at 2026-11-23 10:00:00.000Z.",
        ),
        (
            facts(skips=(skip(0, 10, 22), skip(1, 5, 6, "deleted", hours=1))),
            State.NOT_FOUND,
            "Not decided: no record of it is in the input or among the dead letters; it may have been among"
            " 1 offset that was deleted before it was decided (found 2026-11-23 11:00:00.000Z),"
            " or among 12 that were skipped or deleted before.",
        ),
        (facts(), State.NOT_FOUND, "Not decided: no record of it is in the input or among the dead letters."),
        (facts(unread=(Unread("order-placed", 2, 0, 9),)), State.NOT_FOUND, "among those that wait"),
    ],
)
def test_the_sentence_says_how_the_order_stands(found: Facts, state: State, sentence: str):
    explanation = explained(found)
    assert explanation.state is state
    assert sentence in explanation.summary


def test_a_record_is_what_the_ledger_and_the_committed_offset_make_of_it():
    value = order_value(order_id=ORDER)
    records = [
        record(value, offset=3),
        record(value, offset=7),
        record(b"{", offset=1, key=str(ORDER).encode()),
    ]
    committed: dict[TopicPartition, int | None] = {ZERO: 7}
    standings = {r.place.offset: r.standing for r in inputs(records, [], None, committed, 10_000)}
    assert standings == {3: RecordStanding.PASSED_OVER, 7: RecordStanding.WAITING, 1: RecordStanding.INVALID}
    headers = [("source.topic", b"order-placed"), ("source.partition", b"0"), ("source.offset", b"3")]
    refused = record(value, topic="order-placed-dlt", headers=(*headers, ("error.code", b"data_error")))
    answer = {r.place.offset: r for r in inputs(records, [refused], None, committed, 10_000)}
    assert (answer[3].standing, answer[3].why) == (RecordStanding.INVALID, " (data_error)")


def test_a_dead_letter_with_odd_headers_is_reported_all_the_same():
    odd = record(
        b"\xff",
        headers=(
            ("error.code", None),
            ("source.partition", "²".encode()),
            ("source.offset", b"1"),
            ("failed_at", b"2026-11-23T10:00:00"),
            ("error.message", b"\xff"),
        ),
    )
    (answer,) = dead_letters([odd])
    assert (answer.code, answer.message, answer.source, answer.failed_at) == ("", "\ufffd", None, None)


def test_records_of_an_order_are_distinguished_from_others_that_name_it():
    one = OrderRecords(ORDER, frozenset(["order-confirmed"]), 10_000)
    key = str(ORDER).encode()
    assert one.is_one(record(order_value(order_id=ORDER)))
    assert one.is_one(record(order_value(order_id=ORDER).replace(key, key.upper())))
    assert one.is_one(record(b"{", key=key))
    assert one.is_one(record(None, headers=(("ce_subject", key), ("x", None))))
    assert not one.is_one(record(order_value(line(1)), headers=(("correlation_id", key),)))
    assert not one.is_one(record(b"{"))
    assert one.is_one(record(b"{}", topic="order-confirmed", key=key))
    assert one.is_one(record(b"{}", topic="order-confirmed", headers=(("ce_subject", key),)))
    assert not one.is_one(record(key, topic="order-confirmed"))


def test_a_record_without_a_value_is_a_tombstone_and_never_called_a_publication():
    topic = "order-confirmed"
    read = outcomes([record(b"{}", topic=topic), record(None, offset=1, topic=topic)], topic, None)
    assert [one.tombstone for one in read] == [False, True]
    (section,) = sections(facts(decision=None, outcomes=read))
    assert [row[2] for row in section.rows] == [
        "order-confirmed, and not in the ledger",
        "no outcome but a tombstone: it has no value, and compaction deletes what is before it",
    ]


def test_bounds_are_shared_among_partitions_and_what_is_left_out_is_named():
    spans = {ZERO: (10, 100), ONE: (0, 5)}
    assert first_of(spans, 20) == {ZERO: (10, 20), ONE: (0, 5)}
    assert last_of(spans, 20) == {ZERO: (90, 100), ONE: (0, 5)}
    assert first_of({}, 20) == {}
    whole = {ZERO: Bounds(5, 100), ONE: Bounds(0, 5)}
    left = unread(whole, [first_of(spans, 20), {ZERO: (15, 16)}, {ZERO: (50, 51)}])
    assert [(u.partition, u.start, u.end) for u in left] == [(0, 5, 10), (0, 20, 50), (0, 51, 100)]
    assert unread(whole, [{ZERO: (0, 200), ONE: (0, 5)}]) == ()
    assert places([(ZERO, 4), (ZERO, 5), (ZERO, 100), (TopicPartition("other", 0), 1)], whole) == [
        {ZERO: (5, 6)}
    ]


def test_an_outcome_may_lie_where_it_went_while_its_topic_had_fewer_partitions():
    def numbers(source: int, count: int) -> list[int]:
        return [p.partition for p in homes([TopicPartition("asked", n) for n in range(count)], source)]

    assert numbers(0, 6) == [0]
    assert numbers(5, 6) == [5, 0, 1, 2]
    assert numbers(5, 3) == [2, 1, 0], "the topic has fewer than the input"


def test_a_record_may_claim_any_time_there_is():
    far, before = record(b"{}"), record(b"{}")
    far.timestamp, before.timestamp = 2**63 - 1, -(2**63)
    assert (time_of(far).year, time_of(before).year) == (9999, 1970)


def test_an_order_of_a_thousand_items_stays_on_one_screen():
    lines = [Line(n, 1, Decimal("2.50")) for n in range(1_000)]
    console = Console(width=80, file=io.StringIO(), record=True)
    console.print(explanation_screen(explained(facts(decision=confirmed(*lines)))))
    text = console.export_text()
    assert len(text.splitlines()) < MOST_ROWS + 15
    assert "… and 980 more: --json shows all" in text


def test_nothing_in_a_record_reaches_the_terminal_as_a_command():
    odd = DeadLetterRecord(Place("dlt", 0, 1), NOW, "\x1b[2J", "[red]\x07", "", None, None)
    console = Console(width=200, file=io.StringIO(), record=True)
    console.print(explanation_screen(explained(facts(dead_letters=(odd,)))))
    text = console.export_text()
    assert "\x1b" not in text
    assert "[red]·" in text
