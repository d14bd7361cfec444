"""What `republish` selects, sends and remembers; the rest is in the acceptance tests."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest
from aiokafka.structs import OffsetAndMetadata
from typer.testing import CliRunner

from contracts.envelope import encode_passed_on, event_id
from contracts.fields import time_text
from db.bulk.rows import LedgerRow
from db.statuses import Outcome
from db.worker.ledger import OutcomeFilter
from worker.cli import app
from worker.errors import CommandError, UsageError
from worker.kafka.published import digest
from worker.operations.republish.progress import Progress, from_offset
from worker.operations.republish.republish import selection_name
from worker.operations.republish.send import publication
from worker.settings import Settings

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
ROW = LedgerRow(uuid4(), "rejected", b"", "order-placed", 3, 7, '{"b" : 1,\n "a":"ü"}', NOON)


class TestPublication:
    def test_is_the_stored_event_byte_for_byte_under_the_same_event_id(self) -> None:
        topic, key, value, headers, timestamp_ms = publication(ROW, "order-rejected", 5)
        assert (topic, timestamp_ms) == ("order-rejected", 5)
        assert key == str(ROW.order_id).encode()
        assert value == (ROW.event or "").encode()
        answer = dict(headers)
        assert answer["ce_id"] == str(event_id(ROW.order_id)).encode()
        assert (answer["ce_type"], answer["ce_time"]) == (b"order-rejected", time_text(NOON).encode())
        assert headers[-1] == ("republished", b"true")

    def test_has_what_the_ledger_keeps_of_the_orders_headers(self) -> None:
        kept = [("correlation_id", "für".encode()), ("supersedes", str(uuid4()).encode())]
        row = ROW._replace(passed_on=encode_passed_on(kept))
        assert publication(row, "order-rejected", 5).headers[8:] == [*kept, ("republished", b"true")]

    def test_is_never_taken_for_the_sentinel_of_the_first_publication(self) -> None:
        again = publication(ROW, "order-rejected", 5)
        first = again._replace(headers=again.headers[:-1])
        assert digest(again.key, again.headers) != digest(first.key, first.headers)


class TestSelectionName:
    def test_is_the_same_for_the_same_selection_in_whatever_order_its_ids_are_given(self) -> None:
        a, b = uuid4(), uuid4()
        names = {
            selection_name(Settings(), OutcomeFilter(order_ids=ids)) for ids in [(a, b), (b, a), (a, b, a)]
        }
        assert len(names) == 1

    def test_differs_with_every_filter_with_the_shop_and_with_the_topics(self) -> None:
        wanted = OutcomeFilter()
        filters = [
            wanted,
            replace(wanted, order_ids=(uuid4(),)),
            replace(wanted, decided_from=NOON),
            replace(wanted, decided_before=NOON),
            replace(wanted, source_partition=0),
            replace(wanted, source_partition=0, first_offset=1),
            replace(wanted, source_partition=0, last_offset=1),
            replace(wanted, outcome=Outcome.CONFIRMED),
            replace(wanted, outcome=Outcome.REJECTED),
        ]
        names = {selection_name(Settings(), one) for one in filters}
        others: list[dict[str, Any]] = [
            {"group_id": "g"},
            {"database_schema": "s"},
            {"order_confirmed_topic": "t"},
        ]
        names |= {selection_name(Settings(**other), wanted) for other in others}
        assert len(names) == len(filters) + len(others)


class TestProgress:
    def test_is_read_as_it_was_committed_and_fits_the_note_that_kafka_keeps(self) -> None:
        last = UUID(int=2**128 - 1)
        progress = Progress(NOON, 10**9).behind(last, 500)
        assert (progress.done, progress.last, progress.finished_at) == (500, last, None)
        finished = replace(progress, finished_at=NOON)
        offset = finished.as_offset()
        assert (offset.offset, from_offset(offset, "g")) == (500, finished)
        assert len(offset.metadata) < 4_096

    @pytest.mark.parametrize("note", ["", "order-worker", "{}", '{"frozen_at":"2026-11-23T12:00:00Z"}'])
    def test_of_somebody_else_is_refused(self, note: str) -> None:
        with pytest.raises(CommandError, match="the group g was not committed by this command"):
            from_offset(OffsetAndMetadata(3, note), "g")


ID = "0b6f5c1e-5d0e-4c1e-9d0c-6a4a0c1d2e3f"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "which outcomes?"),
        (["--execute", "--rate", "5"], "which outcomes?"),
        (["--all", "--outcome", "rejected"], "give it alone"),
        (["--order-id", ID, "--order-id", "7"], "--order-id 7 is no order id: write a UUID"),
        (["--order-id", f"{{{ID}}}"], "write a UUID"),
        (["--from", "2026-11-23T10:00:00"], "the time zone is missing"),
        (["--to", "noon"], "--to noon: write a time"),
        (["--from", "2026-11-23T10:00:00Z", "--to", "2026-11-23T11:00:00+01:00"], "is not before"),
        (["--offsets", "1-2"], "give --partition as well"),
        (["--partition", "1", "--offsets", "2-1"], "--offsets 2-1: write"),
        (["--partition", "1", "--offsets", "1-"], "--offsets 1-: write"),
    ],
)
def test_a_wrong_call_is_refused_before_anything_is_asked(arguments: list[str], expected: str) -> None:
    result = CliRunner().invoke(app, ["republish", *arguments])
    assert isinstance(result.exception, UsageError)
    assert expected in str(result.exception)


@pytest.mark.parametrize(
    "arguments", [["--partition", "-1"], ["--rate", "0"], ["--outcome", "maybe"], ["--order-id"]]
)
def test_a_value_out_of_bounds_is_wrong_usage(arguments: list[str]) -> None:
    assert CliRunner().invoke(app, ["republish", *arguments]).exit_code == 2


def test_the_help_has_examples() -> None:
    result = CliRunner().invoke(app, ["republish", "--help"])
    assert "order-worker republish --order-id" in result.output.split("Example")[1]


def test_a_note_is_plain_json() -> None:
    note = json.loads(Progress(NOON, 3).as_offset().metadata)
    assert note == {
        "frozen_at": "2026-11-23T12:00:00Z",
        "total": 3,
        "done": 0,
        "last": None,
        "finished_at": None,
    }
