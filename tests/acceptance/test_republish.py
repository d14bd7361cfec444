"""Stored outcomes announced again: which, as what, and each once whatever ends the command."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from typer.testing import CliRunner

from tests.builders import line, order_value
from tests.deadline import eventually
from tests.promises import Scene
from tests.subscriber import Message
from tests.worker_process import Workers
from worker.cli import app
from worker.errors import CommandError

ROOT = Path(__file__).parents[2]
MANY = 2_000


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str


@dataclass
class Republish:
    """The installed command, in one test's environment."""

    env: Mapping[str, str]
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-m", "worker", "republish", *arguments],
            cwd=ROOT,
            env={**os.environ, **self.env},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.started.append(process)
        return process

    def __call__(self, *arguments: str) -> Result:
        return self.end(self.start(*arguments))

    def here(self, *arguments: str) -> Result:
        """In this process, which is quicker: what is typed, and what comes of it."""
        result = CliRunner().invoke(app, ["republish", *arguments], env=dict(self.env))
        error = result.exception
        if not isinstance(error, CommandError):
            assert error is None, result
            return Result(result.exit_code, result.stdout, result.stderr)
        return Result(error.exit_code, result.stdout, f"error: {error}\n")

    def end(self, process: subprocess.Popen[bytes]) -> Result:
        out, err = process.communicate(timeout=60)
        return Result(process.returncode, out.decode(), err.decode())

    def done(self, *arguments: str) -> dict[str, Any]:
        """What it did, which has to succeed."""
        result = self.here(*arguments, "--execute", "--json")
        assert result.code == 0, result.err
        found: dict[str, Any] = json.loads(result.out)
        return found


@pytest.fixture
def republish(env: dict[str, str]) -> Iterator[Republish]:
    command = Republish(env)
    yield command
    for process in command.started:
        process.kill()
        process.communicate()


def told_again(scene: Scene) -> list[Message]:
    return [m for m in scene.outcomes() if m.header("republished") == "true"]


def subjects(messages: list[Message]) -> Counter[UUID]:
    return Counter(UUID(m.header("ce_subject")) for m in messages)


def write_ledger(scene: Scene, count: int = MANY) -> set[UUID]:
    """Rows as of orders decided in the last hour, with events whose bytes no JSON library would write."""
    rows = scene.shop.sql(
        "INSERT INTO order_outcomes (order_id, outcome, fingerprint, source_topic, source_partition,"
        " source_offset, event, decided_at)"
        " SELECT gen_random_uuid(), CASE i % 3 WHEN 0 THEN 'rejected' ELSE 'confirmed' END, '', $2, i % 4, i,"
        ' (E\'{ "n" :\' || i || E\',\\n"n":1.0, "text": "ü \\\\u00fc" }\')::json,'
        " now() - i * interval '1 second'"
        " FROM generate_series(1, $1::int) i RETURNING order_id",
        count,
        scene.topics.order_placed,
    )
    return {row["order_id"] for row in rows}


def events(scene: Scene) -> dict[UUID, tuple[str, bytes]]:
    rows = scene.shop.sql("SELECT order_id, outcome, event::text FROM order_outcomes")
    return {row["order_id"]: (row["outcome"], row["event"].encode()) for row in rows}


def assert_each_told_again_once(scene: Scene, order_ids: set[UUID]) -> None:
    again, stored = told_again(scene), events(scene)
    assert subjects(again) == Counter(list(order_ids))
    for message in again:
        outcome, event = stored[UUID(message.header("ce_subject"))]
        assert (message.header("ce_type"), message.value) == (f"order-{outcome}", event)


def test_what_a_worker_announced_is_announced_again_as_it_was(
    scene: Scene, workers: Workers, republish: Republish
):
    scene.shop.stock_up({1: 12})
    for partition in range(2):
        values: list[bytes | None] = [order_value(line(1, 1)) for _ in range(10)]
        scene.place(values, partition=partition, headers=[("correlation_id", b"c-1")])
    worker = workers.start()
    scene.wait_until_drained()
    first = {m.header("ce_id"): m for m in scene.outcomes()}
    assert len(first) == 20

    # A dry run says what it would do, and does nothing.
    seen = republish("--all")
    assert (seen.code, seen.err) == (0, "")
    assert "20 selected" in seen.out
    assert "Nothing was sent. To announce them: order-worker republish --all --execute" in seen.out
    found = json.loads(republish.here("--outcome", "rejected", "--json").out)
    assert (found["total"], {p["topic"] for p in found["portions"]}) == (8, {scene.topics.order_rejected})
    assert told_again(scene) == []

    assert republish.done("--all")["progress"]["done"] == 20
    again = told_again(scene)
    assert Counter(m.header("ce_id") for m in again) == Counter(list(first))
    for message in again:
        original = first[message.header("ce_id")]
        assert (message.key, message.value, message.partition) == (
            original.key,
            original.value,
            original.partition,
        )
        kept = [header for header in original.headers if header[0] != "correlation_id"]
        assert message.headers == [*kept, ("republished", b"true")]

    # The worker is not disturbed: it goes on, and after a restart tells nothing again.
    worker.stop()
    scene.place([order_value(line(1, 1))])
    workers.start()
    scene.wait_until_drained()
    assert len(scene.outcomes()) == 20 + 20 + 1
    scene.shop.assert_conserved()


def test_filters_combine_and_select_what_they_say(scene: Scene, republish: Republish):
    write_ledger(scene, 40)
    rows = scene.shop.sql("SELECT * FROM order_outcomes ORDER BY decided_at")

    def told_by(*arguments: str) -> set[int]:
        before = len(told_again(scene))
        republish.done(*arguments)
        fresh = Counter([m.header("ce_subject") for m in told_again(scene)]) - seen
        seen.update(fresh)
        assert fresh.total() == len(told_again(scene)) - before
        return {row["source_offset"] for row in rows if str(row["order_id"]) in fresh}

    seen: Counter[str] = Counter()
    a, b = rows[3], rows[7]
    by_id = told_by("--order-id", str(a["order_id"]), "--order-id", str(b["order_id"]).upper())
    assert by_id == {a["source_offset"], b["source_offset"]}
    window = ["--from", rows[10]["decided_at"].isoformat(), "--to", rows[20]["decided_at"].isoformat()]
    assert told_by(*window) == {row["source_offset"] for row in rows[10:20]}
    rejected = {row["source_offset"] for row in rows[10:20] if row["outcome"] == "rejected"}
    assert told_by(*window, "--outcome", "rejected") == rejected
    assert told_by("--partition", "1", "--offsets", "5-13") == {5, 9, 13}
    assert told_by("--partition", "2", "--offsets", "6") == {6}


def test_nothing_selected_is_one_line_and_exit_1(scene: Scene, republish: Republish):
    undecided = str(uuid4())
    for arguments, expected in (
        (["--all"], "the ledger holds no such outcome"),
        (["--all", "--execute"], "the ledger holds no such outcome"),
        (["--order-id", undecided, "--execute"], f"not decided yet: {undecided}"),
    ):
        result = republish.here(*arguments)
        assert (result.code, result.out, result.err.count("\n")) == (1, "", 1)
        assert expected in result.err
    (known,) = write_ledger(scene, 1)
    both = republish.here("--order-id", str(known), "--order-id", undecided, "--execute")
    assert both.code == 0
    assert f"not decided, and left out: {undecided}" in both.out


def test_killed_again_and_again_it_announces_each_once_and_then_says_so(scene: Scene, republish: Republish):
    order_ids = write_ledger(scene)
    for reached in (200, 700):
        process = republish.start("--all", "--rate", "600", "--execute")
        eventually(lambda at_least=reached: len(told_again(scene)) >= at_least, 30)
        process.kill()
        assert process.wait(10) == -signal.SIGKILL
    later = write_ledger(scene, 1)  # the selection does not grow
    scene.shop.sql("UPDATE order_outcomes SET decided_at = now() WHERE order_id = $1", *later)
    assert "An earlier run came to" in republish.here("--all").out

    done = republish.done("--all")
    assert done["confirmed"] + done["rejected"] < done["progress"]["done"] == MANY
    assert_each_told_again_once(scene, order_ids)

    finished = republish.here("--all", "--execute")
    assert (finished.code, finished.err) == (0, "")
    assert "add --again" in finished.out
    assert republish.here("--all").out.endswith(" --again --execute\n")
    assert_each_told_again_once(scene, order_ids)
    assert republish.done("--all", "--again")["progress"]["done"] == MANY + 1
    assert subjects(told_again(scene)) == Counter([*order_ids, *order_ids, *later])


def test_ctrl_c_ends_the_transaction_in_hand_and_the_next_run_goes_on(scene: Scene, republish: Republish):
    order_ids = write_ledger(scene)
    process = republish.start("--all", "--rate", "500", "--execute")
    eventually(lambda: told_again(scene), 30)
    process.send_signal(signal.SIGINT)
    stopped = republish.end(process)
    assert (stopped.code, stopped.out) == (130, "")
    assert stopped.err == "stopped: the same command goes on where this one came to\n"
    so_far = len(told_again(scene))
    assert 0 < so_far < MANY
    assert republish.done("--all")["progress"]["done"] == MANY
    assert_each_told_again_once(scene, order_ids)


def test_a_second_run_of_the_same_selection_ends_the_first_and_goes_on_there(
    scene: Scene, republish: Republish
):
    order_ids = write_ledger(scene)
    first = republish.start("--all", "--rate", "100", "--execute")
    eventually(lambda: told_again(scene), 30)
    assert republish.done("--all")["progress"]["done"] == MANY
    ended = republish.end(first)
    assert (ended.code, ended.err.count("\n")) == (1, 1)
    assert "another run of the same selection took over after" in ended.err
    assert_each_told_again_once(scene, order_ids)


@pytest.mark.parametrize("flag", [[], ["--execute"]])
@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1", "cannot reach Kafka at 127.0.0.1:1"),
        (
            "DATABASE_URL",
            "postgresql://postgres:s3cret@127.0.0.1:1/x",
            "cannot reach PostgreSQL at 127.0.0.1:1",
        ),
        ("ORDER_REJECTED_TOPIC", "no-such-topic", "lacks the topic no-such-topic"),
    ],
)
def test_a_server_or_topic_that_is_away_is_one_line(
    scene: Scene, republish: Republish, flag: list[str], variable: str, value: str, expected: str
):
    republish.env = {**republish.env, f"ORDER_WORKER_{variable}": value}
    result = republish.here("--all", *flag)
    assert (result.code, result.out, result.err.count("\n")) == (1, "", 1)
    assert expected in result.err
    assert "s3cret" not in result.err
