"""The checks of the report notice what they are for: each fault fails the check that names it."""

import io
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from rich.console import Console

from contracts.envelope import event_id
from contracts.events import OrderPlaced
from worker.sandbox.demo.checks import DemoRun, Kill, checks
from worker.sandbox.demo.evidence import DemoEvidence, OrderEvidence, ProductStock, StoredDecision
from worker.sandbox.demo.feed import PlacedRecord, RecordKind, schedule
from worker.sandbox.demo.report import latency, print_kept, print_next, print_report, program_here
from worker.sandbox.demo.retailer import Retailer, read_retailer
from worker.sandbox.demo.watch import SeenLetter, SeenOutcome, TopicTally


@pytest.fixture(scope="module")
def retailer() -> Retailer:
    whole = read_retailer()
    return replace(whole, invoices=whole.invoices[:60])


@pytest.fixture
def run(retailer: Retailer) -> DemoRun:
    """A run in which everything went as promised: every order confirmed 50 ms after it was placed."""
    started_at = datetime(2026, 11, 23, tzinfo=UTC)
    due = schedule(retailer.invoices, started_at=started_at, seconds=6, partitions=4, seed=1)
    placed = [PlacedRecord(p, p.partition, offset, offset * 100) for offset, p in enumerate(due)]
    tally, evidence = TopicTally(), DemoEvidence([], [ProductStock(1, 100, 40, 60)], [])
    for one in placed:
        if one.placement.code:
            tally.letters.append(
                SeenLetter(one.placement.code, one.partition, one.offset, one.placement.value)
            )
        if one.placement.kind is RecordKind.ORDER:
            confirm(one, tally, evidence)
    return DemoRun(
        retailer=retailer,
        placed=placed,
        due=len(due),
        tally=tally,
        evidence=evidence,
        lag=0,
        read_to_the_end=True,
        kill=Kill("worker 2", (2, 3), 3.0, 3_000, 3_000, took_over_after=3.1, back_after=2.0),
        alive={"worker 1": True, "worker 2": True},
        seconds=6.2,
    )


def confirm(one: PlacedRecord, tally: TopicTally, evidence: DemoEvidence) -> None:
    order_id = UUID(one.placement.key.decode())
    assert one.placement.value is not None
    fingerprint = OrderPlaced.model_validate_json(one.placement.value).fingerprint()
    event = f"event of {order_id}".encode()
    evidence.ledger.append(
        StoredDecision(order_id, "confirmed", fingerprint, one.partition, one.offset, event)
    )
    evidence.orders.append(OrderEvidence(order_id, Decimal("2.50"), Decimal("2.50")))
    seen = SeenOutcome("confirmed", event, str(event_id(order_id)), one.placed_ms + 50)
    tally.outcomes[str(order_id)] = [seen]
    tally.counts["confirmed"] += 1


def failing(run: DemoRun) -> set[str]:
    return {check.name for check in checks(run) if not check.held}


def first_outcome(run: DemoRun) -> list[SeenOutcome]:
    return next(iter(run.tally.outcomes.values()))


def test_all_checks_hold_when_all_went_well(run: DemoRun):
    assert failing(run) == set()
    assert len(checks(run)) == 8


def test_an_outcome_seen_twice_is_noticed(run: DemoRun):
    first_outcome(run).append(first_outcome(run)[0])
    assert failing(run) == {"Every outcome seen once"}


@pytest.mark.parametrize("change", [{"value": b"other"}, {"event_id": ""}, {"outcome": "rejected"}])
def test_an_outcome_that_is_not_the_ledgers_is_noticed(run: DemoRun, change: dict[str, Any]):
    first_outcome(run)[0] = replace(first_outcome(run)[0], **change)
    assert failing(run) == {"Every outcome seen once"}


def test_a_decided_order_that_was_never_published_is_noticed(run: DemoRun):
    run.tally.outcomes.popitem()
    assert failing(run) == {"Every outcome seen once"}


def test_an_outcome_of_no_decided_order_is_noticed(run: DemoRun):
    run.tally.outcomes[str(UUID(int=7))] = [first_outcome(run)[0]]
    assert failing(run) == {"Every outcome seen once"}


def test_a_lost_order_is_noticed(run: DemoRun):
    lost = run.evidence.ledger.pop()
    del run.tally.outcomes[str(lost.order_id)]
    del run.evidence.orders[-1]
    assert failing(run) >= {"Every record has one fate", "Every order decided once"}


def test_a_missing_and_a_second_dead_letter_are_noticed(run: DemoRun):
    run.tally.letters.append(run.tally.letters[0])
    assert failing(run) == {"Broken ones are set aside"}
    del run.tally.letters[-1], run.tally.letters[0]
    assert failing(run) == {"Broken ones are set aside", "Every record has one fate"}


def test_a_dead_letter_with_another_code_is_noticed(run: DemoRun):
    run.tally.letters[0] = replace(run.tally.letters[0], code="data_error")
    assert failing(run) == {"Broken ones are set aside"}


@pytest.mark.parametrize("stock", [ProductStock(2, 10, 5, 6), ProductStock(2, 10, 11, -1)])
def test_stock_that_does_not_add_up_is_noticed(run: DemoRun, stock: ProductStock):
    run.evidence.stocks.append(stock)
    assert failing(run) == {"Stock is conserved"}


def test_an_order_that_is_not_stored_as_confirmed_is_noticed(run: DemoRun):
    run.evidence.orders[0] = replace(run.evidence.orders[0], sum_of_lines=Decimal("2.49"))
    assert failing(run) == {"Only confirmed are stored"}
    del run.evidence.orders[0]
    assert failing(run) == {"Only confirmed are stored"}


@pytest.mark.parametrize("change", [{"lag": 1}, {"lag": None}, {"read_to_the_end": False}, {"due": 100_000}])
def test_what_is_not_read_to_the_end_is_noticed(run: DemoRun, change: dict[str, Any]):
    assert failing(replace(run, **change)) == {"Every record is read"}


def test_a_worker_that_is_gone_or_never_came_back_is_noticed(run: DemoRun):
    assert failing(replace(run, alive={"worker 1": True, "worker 2": False})) == {"The kill was survived"}
    changes: list[dict[str, Any]] = [{"back_after": None}, {"took_over_after": None}]
    for change in changes:
        assert failing(replace(run, kill=replace(run.kill, **change))) == {"The kill was survived"}


def test_latency_is_from_placed_to_seen(run: DemoRun):
    whole, before = latency(run), latency(run, before_ms=3_000)
    assert whole is not None
    assert before is not None
    assert (whole.orders, whole.median_ms, whole.p99_ms, whole.longest_ms) == (60, 50, 50, 50)
    assert 0 < before.orders < 60
    assert latency(run, before_ms=0) is None


@pytest.mark.parametrize("width", [80, 100, 120])
def test_the_report_fits_and_says_what_failed(run: DemoRun, width: int):
    run.tally.letters.append(run.tally.letters[0])
    console = Console(width=width, file=io.StringIO())
    with console.capture() as captured:
        print_report(console, run, checks(run), seconds_in_all=31.0)
        print_next(console)
    text = captured.get()
    assert max(map(len, text.splitlines())) <= width
    assert "✗ FAILED  Broken ones are set aside" in text
    assert "1 of 8 checks FAILED" in text
    assert text.count("✓ ok") == 7


def test_the_page_is_named_at_the_end_and_where_all_stays_up():
    console = Console(width=100, file=io.StringIO())
    with console.capture() as captured:
        print_next(console)
        print_kept(
            console,
            kafka="127.0.0.1:9092",
            database="postgresql://127.0.0.1/shop",
            workers={"worker 1": "http://127.0.0.1:4711", "worker 2": "http://127.0.0.1:4712"},
            exports={},
            is_given=False,
        )
    end, kept = captured.get().split("Still running")
    assert "make demo KEEP=1" in end
    assert "operator's page" in end
    assert "The operator's page  http://127.0.0.1:4711/" in [line.strip() for line in kept.splitlines()]


def test_what_to_type_next_is_found_from_this_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    programs = tmp_path / ".venv" / "bin"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.executable", str(programs / "python"))
    monkeypatch.setenv("PATH", "/usr/bin")
    assert program_here() == ".venv/bin/order-worker"
    console = Console(width=100, file=io.StringIO())
    with console.capture() as captured:
        print_next(console, program=program_here())
    assert ".venv/bin/order-worker --help" in captured.get()

    programs.mkdir(parents=True)
    (programs / "order-worker").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(programs))
    assert program_here() == "order-worker"
