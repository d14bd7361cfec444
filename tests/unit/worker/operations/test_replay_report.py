"""What `replay` prints for a person and a script."""

import io
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import pytest
from aiokafka import TopicPartition
from rich.console import Console

from worker.core.results import Fate
from worker.kafka.offsets import Bounds, TopicSelection
from worker.operations.replay.plan import Move, Target, To
from worker.operations.replay.rehearsal import ProductChange, RehearsalTally
from worker.operations.replay.replay import ReplayRun
from worker.operations.replay.terminal import ReplayReport, report, show
from worker.settings import Settings

PARTITION = TopicPartition("order-placed", 0)
TALLY = RehearsalTally(
    Counter({Fate.SILENCED: 90, Fate.DUPLICATE: 1, Fate.CONFIRMED: 4, Fate.REJECTED: 2, Fate.DEAD_LETTER: 3}),
    Counter({"confirmed": 60, "rejected": 30}),
    Counter({"insufficient_stock": 2, "unknown_user": 1}),
    Counter({"not_json": 2, "order_id_conflict": 1}),
)
BACK = Target(To.SHIFT, -100)


def found(target: Target = BACK, **changed: Any) -> ReplayReport:
    move = Move(PARTITION, Bounds(0, 250), 250, committed=250, target=150)
    changes = [ProductChange(i, stock=9, taken=9, refused=1, wanted=10, partitions={0, 1}) for i in range(12)]
    replay = ReplayRun(target, [move], [], {}, {PARTITION: TALLY}, changes, seconds=0.5)
    for name, value in changed.items():
        setattr(replay, name, value)
    return report(Settings(_env_file=None), TopicSelection("order-placed", (0,)), replay)


def screen_of(found: ReplayReport, columns: int = 80) -> str:
    out = io.StringIO()
    show(Console(file=out, width=columns, highlight=False), found)
    return out.getvalue()


def test_every_record_is_in_one_class():
    one = found()
    classes = (one.decided, one.duplicates, one.would_confirm, one.would_reject, one.conflicts, one.poison)
    assert classes == (90, 1, 4, 2, 1, 2)
    assert sum(classes) == one.records == 100
    assert one.poison_by_code == {"not_json": 2}


def test_the_next_command_does_what_was_rehearsed():
    said = "order-worker replay --shift-by -100 --topic order-placed:0 --execute"
    assert found().next_command == said
    at = datetime(2026, 11, 23, 10, tzinfo=UTC)
    timed = found(Target(To.TIME, time=at)).next_command
    assert timed.startswith("order-worker replay --to-datetime 2026-11-23T10:00:00Z ")
    assert found(executed=True).next_command == "order-worker run"


@pytest.mark.parametrize("columns", [80, 120])
def test_the_screen_fits_and_shows_the_first_products(columns: int):
    text = screen_of(found(), columns)
    *lines, command = text.splitlines()
    assert max(map(len, lines)) <= columns
    assert command.startswith("To do it: order-worker replay "), "in one piece, to be copied"
    assert command.endswith(" --execute")
    assert "… and 2 products more (all with --json)" in text
    assert "Not certain for product 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 …:" in text
    assert "100 records rehearsed in 0.5 s (200/s)" in text
    assert "undecided: rejected" in text
    assert "insufficient_stock 2, unknown_user 1" in text


def test_what_was_done_says_what_to_do_next():
    text = screen_of(found(executed=True), 120)
    assert "nothing was changed" not in text
    assert "Now start the workers: order-worker run\nThey skip 91 records and decide 6;" in text
