"""Stored outcomes published again: which, as what, and each once whatever ends the command."""

import signal
from collections import Counter
from typing import Any
from uuid import UUID, uuid4

import pytest

from tests.support.builders import line, order_value
from tests.support.deadline import eventually
from tests.support.order_worker import OrderWorker, ended
from tests.support.promises import Scene
from tests.support.subscriber import Message
from tests.support.worker_process import Workers

pytestmark = pytest.mark.guarantee_2

MANY = 2_000


@pytest.fixture
def republish(order_worker: OrderWorker) -> OrderWorker:
    return order_worker.of("republish")


def done(republish: OrderWorker, *arguments: str) -> Any:
    """What it did, which has to succeed."""
    return republish.here(*arguments, "--execute", "--json").done().document


def published_again(scene: Scene) -> list[Message]:
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


def assert_each_published_again_once(scene: Scene, order_ids: set[UUID]) -> None:
    again, stored = published_again(scene), events(scene)
    assert subjects(again) == Counter(list(order_ids))
    for message in again:
        outcome, event = stored[UUID(message.header("ce_subject"))]
        assert (message.header("ce_type"), message.value) == (f"order-{outcome}", event)


def test_what_a_worker_published_is_published_again_as_it_was(
    scene: Scene, workers: Workers, republish: OrderWorker
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
    seen = republish("--all").done().out
    assert "20 selected" in seen
    assert "Nothing was sent. To publish them: order-worker republish --all --execute" in seen
    found = republish.here("--outcome", "rejected", "--json").document
    assert (found["total"], {p["topic"] for p in found["portions"]}) == (8, {scene.topics.order_rejected})
    assert published_again(scene) == []

    assert done(republish, "--all")["progress"]["done"] == 20
    again = published_again(scene)
    assert Counter(m.header("ce_id") for m in again) == Counter(list(first))
    for message in again:
        original = first[message.header("ce_id")]
        assert (message.key, message.value, message.partition) == (
            original.key,
            original.value,
            original.partition,
        )
        assert message.header("correlation_id") == "c-1"
        assert message.headers == [*original.headers, ("republished", b"true")]

    # The worker is not disturbed: it continues, and after a restart publishes nothing again.
    worker.stop()
    scene.place([order_value(line(1, 1))])
    workers.start()
    scene.wait_until_drained()
    assert len(scene.outcomes()) == 20 + 20 + 1
    scene.shop.assert_conserved()


def test_filters_combine_and_select_what_they_say(scene: Scene, republish: OrderWorker):
    write_ledger(scene, 40)
    rows = scene.shop.sql("SELECT * FROM order_outcomes ORDER BY decided_at")

    def republished_by(*arguments: str) -> set[int]:
        before = seen.total()
        done(republish, *arguments)
        published = published_again(scene)
        fresh = Counter([str(m.header("ce_subject")) for m in published]) - seen
        seen.update(fresh)
        assert fresh.total() == len(published) - before
        return {row["source_offset"] for row in rows if str(row["order_id"]) in fresh}

    seen: Counter[str] = Counter()
    a, b = rows[3], rows[7]
    by_id = republished_by("--order-id", str(a["order_id"]), "--order-id", str(b["order_id"]).upper())
    assert by_id == {a["source_offset"], b["source_offset"]}
    window = ["--from", rows[10]["decided_at"].isoformat(), "--to", rows[20]["decided_at"].isoformat()]
    assert republished_by(*window) == {row["source_offset"] for row in rows[10:20]}
    rejected = {row["source_offset"] for row in rows[10:20] if row["outcome"] == "rejected"}
    assert republished_by(*window, "--outcome", "rejected") == rejected
    assert republished_by("--partition", "1", "--offsets", "5-13") == {5, 9, 13}
    assert republished_by("--partition", "2", "--offsets", "6") == {6}


def test_nothing_selected_is_one_line_and_exit_1(scene: Scene, republish: OrderWorker):
    undecided = str(uuid4())
    for arguments, expected in (
        (["--all"], "the ledger holds no such outcome"),
        (["--all", "--execute"], "the ledger holds no such outcome"),
        (["--order-id", undecided, "--execute"], f"not decided yet: {undecided}"),
    ):
        republish.here(*arguments).assert_refused(1, expected)
    (known,) = write_ledger(scene, 1)
    both = republish.here("--order-id", str(known), "--order-id", undecided, "--execute").done()
    assert f"not decided, and left out: {undecided}" in both.out


def test_killed_again_and_again_it_publishes_each_once_and_then_says_so(scene: Scene, republish: OrderWorker):
    order_ids = write_ledger(scene)
    for reached in (200, 700):
        process = republish.start("--all", "--rate", "600", "--execute")
        eventually(lambda: len(published_again(scene)) >= reached, 30)  # noqa: B023
        process.kill()
        assert process.wait(10) == -signal.SIGKILL
    later = write_ledger(scene, 1)  # the selection does not grow
    scene.shop.sql("UPDATE order_outcomes SET decided_at = now() WHERE order_id = $1", *later)
    assert "An earlier run came to" in republish.here("--all").out

    result = done(republish, "--all")
    assert result["confirmed"] + result["rejected"] < result["progress"]["done"] == MANY
    assert_each_published_again_once(scene, order_ids)

    assert "add --again" in republish.here("--all", "--execute").done().out
    assert republish.here("--all").out.endswith(" --again --execute\n")
    assert_each_published_again_once(scene, order_ids)
    assert done(republish, "--all", "--again")["progress"]["done"] == MANY + 1
    assert subjects(published_again(scene)) == Counter([*order_ids, *order_ids, *later])


def test_ctrl_c_ends_the_transaction_in_hand_and_the_next_run_continues(scene: Scene, republish: OrderWorker):
    order_ids = write_ledger(scene)
    process = republish.start("--all", "--rate", "500", "--execute")
    eventually(lambda: published_again(scene), 30)
    process.send_signal(signal.SIGINT)
    stopped = ended(process)
    assert (stopped.code, stopped.out) == (130, "")
    assert stopped.err == "stopped: the same command continues where this one came to\n"
    so_far = len(published_again(scene))
    assert 0 < so_far < MANY
    assert done(republish, "--all")["progress"]["done"] == MANY
    assert_each_published_again_once(scene, order_ids)


def test_a_second_run_of_the_same_selection_ends_the_first_and_continues_there(
    scene: Scene, republish: OrderWorker
):
    order_ids = write_ledger(scene)
    first = republish.start("--all", "--rate", "100", "--execute")
    eventually(lambda: published_again(scene), 30)
    assert done(republish, "--all")["progress"]["done"] == MANY
    ended(first).assert_one_line(1, "another run of the same selection took over after")
    assert_each_published_again_once(scene, order_ids)


def test_what_is_pruned_meanwhile_is_counted_and_not_passed_over(scene: Scene, republish: OrderWorker):
    write_ledger(scene)
    running = republish.start("--all", "--rate", "500", "--execute")
    eventually(lambda: published_again(scene), 30)
    scene.shop.sql("UPDATE order_outcomes SET event = NULL")
    said = ended(running).done().out
    so_far = len(published_again(scene))
    assert 0 < so_far < MANY
    pruned = f"their events were pruned meanwhile (`ledger prune`): {MANY - so_far:,}"
    assert pruned in said
    assert pruned in republish.here("--all", "--execute").done().out


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
    scene: Scene, republish: OrderWorker, flag: list[str], variable: str, value: str, expected: str
):
    result = republish.here("--all", *flag, **{f"ORDER_WORKER_{variable}": value})
    result.assert_refused(1, expected)
    assert "s3cret" not in result.err
