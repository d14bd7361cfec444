"""`order-worker reconcile`: a clean shop is clean, each discrepancy is found, what is safe is repaired."""

import signal
import sys
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest
from aiokafka import AIOKafkaProducer

from tests.support.builders import line, order_value
from tests.support.deadline import eventually
from tests.support.order_worker import OrderWorker, Result
from tests.support.promises import Scene
from tests.support.shop import run_apart
from tests.support.subscriber import (
    create_topics,
    delete_records,
    delete_topics,
    end_of,
    publish,
    read_topic,
    set_option,
)
from tests.support.topic_names import PARTITIONS, TopicNames
from tests.support.worker_process import Workers
from worker.core.steps import Step
from worker.operations.reconcile import reconcile as operation
from worker.operations.reconcile.reconcile import ReconcileRequest, reconciled
from worker.operations.reconcile.repair import repair
from worker.settings import Settings

pytestmark = pytest.mark.guarantee_3

Found = set[tuple[str, str | None, str]]


def judged(reconcile: OrderWorker, *arguments: str) -> Result:
    result = reconcile.here(*arguments, "--json")
    assert result.code in {0, 1}, result
    return result


def found(result: Result) -> Found:
    """Code, place and order (or product) of each discrepancy."""
    listed = result.document["found"]
    assert len(listed) == sum(result.document["discrepancies"].values())
    return {(d["code"], d["place"], str(d["order_id"] or d["product_id"])) for d in listed}


@pytest.fixture
def reconcile(order_worker: OrderWorker) -> OrderWorker:
    return order_worker.of("reconcile")


def settings(env: Mapping[str, str]) -> Settings:
    given: dict[str, Any] = {name.removeprefix("ORDER_WORKER_").lower(): value for name, value in env.items()}
    return Settings(**given, _env_file=None)


def found_id(result: Result) -> str:
    """Of the one discrepancy there is."""
    (one,) = result.document["found"]
    return str(one["order_id"])


def skip_offsets(scene: Scene, kind: str, first: int, end: int, who: str, note: str) -> None:
    """As a command or a worker records it, of partition 0."""
    scene.shop.sql(
        "INSERT INTO skips (topic, partition, kind, from_offset, to_offset, requested_by, note)"
        " VALUES ($1, 0, $2, $3, $4, $5, $6)",
        *(scene.topics.order_placed, kind, first, end, who, note),
    )


def drain(scene: Scene, workers: Workers, **settings: str) -> None:
    """Let a worker decide all there is, and end."""
    worker = workers.start(**settings)
    scene.wait_until_drained()
    assert worker.stop() == 0


@pytest.fixture
def aside(scene: Scene) -> Iterator[TopicNames]:
    """Topics beside the test's own, for outcomes that nobody published."""
    names = TopicNames(
        scene.topics.order_placed,
        f"{scene.topics.order_confirmed}-aside",
        f"{scene.topics.order_rejected}-aside",
        scene.topics.dead_letter,
    )
    create_topics(scene.kafka, {names.order_confirmed: None, names.order_rejected: None}, PARTITIONS)
    yield names
    delete_topics(scene.kafka, [names.order_confirmed, names.order_rejected])


def test_a_clean_shop_with_every_kind_of_result_is_clean(
    scene: Scene, workers: Workers, reconcile: OrderWorker
):
    scene.shop.stock_up({1: 100, 2: 5})
    ids = [uuid4() for _ in range(40)]
    good: list[bytes | None] = [order_value(line(1), line(2), order_id=i) for i in ids]
    scene.place(good, partition=0)
    scene.place([*good[:4], order_value(line(1, 2), order_id=ids[0]), b"no order", None], partition=0)
    scene.place([b"{}", order_value(line(99)), order_value(user_id=99)], partition=1)
    drain(scene, workers)
    scene.place([order_value(), b"nor this"], partition=2)  # not committed yet

    answer = judged(reconcile)
    assert (answer.code, found(answer)) == (0, set())
    document = answer.document
    assert (document["records"], document["waiting"], document["remarks"]) == (50, 2, {})
    assert document["results"] == {"confirmed": 5, "rejected": 37, "duplicate": 4, "dead_letter": 4}
    published = reconcile().done().out
    assert "nothing is missing: each of 50 records has exactly one result" in published


def test_outcomes_that_were_never_published_are_published_as_the_worker_would_have(
    scene: Scene, workers: Workers, reconcile: OrderWorker, aside: TopicNames
):
    scene.shop.stock_up({1: 30})
    headers: list[tuple[str, bytes | None]] = [
        ("correlation_id", "käse-1".encode()),
        ("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ("other", b"\xff"),
    ]
    ids = [uuid4() for _ in range(300)]
    scene.place([order_value(line(1), order_id=i) for i in ids[:50]], headers=headers)
    scene.place([order_value(line(1), order_id=i) for i in ids[50:]])
    drain(
        scene,
        workers,
        order_confirmed_topic=aside.order_confirmed,
        order_rejected_topic=aside.order_rejected,
    )
    meant = read_topic(scene.kafka, aside.order_confirmed) + read_topic(scene.kafka, aside.order_rejected)
    assert len(meant) == 300

    answer = judged(reconcile, "--repair")
    assert {one[0] for one in found(answer)} == {"not_told"}
    assert {one[2] for one in found(answer)} == {str(i) for i in ids}
    shown = reconcile.here("--repair")
    assert shown.code == 1
    assert "with --execute 300 outcomes would be published; nothing was changed" in shown.out
    assert scene.outcomes() == []

    # Two at once, and one of them killed: the one that is fenced says so, and nothing is published twice.
    killed = reconcile.start("--repair", "--execute")
    other = reconcile("--repair", "--execute")
    killed.kill()
    killed.communicate()
    assert other.code in {0, 1}, other.err
    final = reconcile("--repair", "--execute")
    assert final.code == 0, final.out + final.err
    published = scene.outcomes()
    assert {(m.key, m.value, tuple(m.headers), m.partition) for m in published} == {
        (m.key, m.value, tuple(m.headers), m.partition) for m in meant
    }
    assert found(judged(reconcile)) == set()
    scene.assert_promises(ids)


def test_a_repair_that_was_killed_in_the_middle_of_a_transaction_is_taken_up(
    scene: Scene, workers: Workers, reconcile: OrderWorker, aside: TopicNames
):
    scene.shop.stock_up({1: 30})
    ids = [uuid4() for _ in range(10)]
    scene.place([order_value(line(1), order_id=i) for i in ids], partition=0)
    drain(scene, workers, order_confirmed_topic=aside.order_confirmed)

    async def die_over_it() -> None:
        """As a killed process leaves it: the broker holds the transaction open for a minute."""
        producer = AIOKafkaProducer(
            bootstrap_servers=scene.kafka, transactional_id=f"{scene.group_id}.reconcile"
        )
        await producer.start()
        await producer.begin_transaction()
        await producer.send_and_wait(scene.topics.order_confirmed, b"half", partition=0)
        await producer.client.close()
        producer._sender.sender_task.cancel()
        producer._closed = True

    run_apart(die_over_it())
    assert reconcile("--repair", "--execute").code == 0
    scene.assert_promises(ids)


def test_what_another_repair_publishes_meanwhile_is_not_published_twice(
    scene: Scene,
    workers: Workers,
    reconcile: OrderWorker,
    aside: TopicNames,
    env: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
):
    scene.shop.stock_up({1: 30})
    ids = [uuid4() for _ in range(10)]
    scene.place([order_value(line(1), order_id=i) for i in ids])
    drain(scene, workers, order_confirmed_topic=aside.order_confirmed)

    async def repair_after_another(*args: Any, **options: Any) -> int:
        monkeypatch.undo()
        assert reconcile("--repair", "--execute").code == 0
        return await repair(*args, **options)

    monkeypatch.setattr(operation, "repair", repair_after_another)

    async def run() -> tuple[int | None, int]:
        asked = ReconcileRequest(repair=True, execute=True, quiet=True)
        async with reconciled(settings(env), asked, print) as both:
            return both.summary.repaired, both.summary.left

    assert run_apart(run()) == (0, 0)
    scene.assert_promises(ids)


def test_each_discrepancy_is_found_for_what_it_is(scene: Scene, workers: Workers, reconcile: OrderWorker):
    scene.shop.stock_up({1: 1_000, 2: 0})
    ids = [uuid4() for _ in range(16)]
    values: list[bytes | None] = [order_value(line(1, 2), order_id=i) for i in ids[:14]]
    values += [order_value(line(2), order_id=i) for i in ids[14:]]
    scene.place([*values, b"poison"], partition=0)
    drain(scene, workers)
    events = {m.header("ce_subject"): m for m in scene.outcomes()}
    known: Found = set()

    def write(topic: str, value: bytes | None, key: bytes | None, **headers: str) -> None:
        sent: list[tuple[str, bytes | None]] = [(k.replace("_", "."), v.encode()) for k, v in headers.items()]
        publish(scene.kafka, topic, [value], partition=0, key=key, headers=sent)

    def source(offset: int) -> str:
        return f"{scene.topics.order_placed}-0@{offset}"

    def expect(*new: tuple[str, str | None, UUID | str]) -> None:
        """Besides what is known already."""
        known.update((code, place, str(order)) for code, place, order in new)
        result = judged(reconcile)
        assert (result.code, found(result)) == (1, known)

    sql = scene.shop.sql
    confirmed, rejected, letters = (
        scene.topics.order_confirmed,
        scene.topics.order_rejected,
        scene.topics.dead_letter,
    )
    confirmed_end, rejected_end = (end_of(scene.kafka, topic, 0) for topic in (confirmed, rejected))
    first = events[str(ids[0])]
    write(confirmed, first.value, first.key)
    # On purpose: no discrepancy.
    write(confirmed, first.value, first.key, republished="true")
    expect(("told_twice", source(0), ids[0]))

    nobody = uuid4()
    write(confirmed, b"{}", str(ids[1]).encode())
    write(rejected, events[str(ids[2])].value, str(ids[2]).encode())
    write(rejected, b"{}", str(nobody).encode())
    write(rejected, b"{}", None)
    expect(
        ("event_differs", f"{confirmed}-0@{confirmed_end + 2}", ids[1]),
        ("wrong_topic", f"{rejected}-0@{rejected_end}", ids[2]),
        ("outcome_without_row", f"{rejected}-0@{rejected_end + 1}", nobody),
        ("outcome_without_row", f"{rejected}-0@{rejected_end + 2}", "None"),
    )

    here = {"source_topic": scene.topics.order_placed, "source_partition": "0"}
    write(letters, b"", None, **here, source_offset="3")
    # Of another topic, of a record of another time, of none, and once more: no discrepancies.
    write(letters, b"", None, **{**here, "source_topic": "x"}, source_offset="4")
    write(letters, b"", None, **here, source_offset="4", source_timestamp="7")
    write(letters, b"", None, **here, source_offset="16")
    expect(("decided_and_dead", source(3), ids[3]))

    sql("UPDATE order_outcomes SET fingerprint = '\\x00' WHERE order_id = $1", ids[4])
    sql("UPDATE order_outcomes SET source_offset = 16 WHERE order_id = $1", ids[5])
    sql("DELETE FROM order_outcomes WHERE order_id = $1", ids[6])
    sql("UPDATE orders SET total_amount = total_amount + 1 WHERE id = $1", ids[7])
    sql("UPDATE order_items SET unit_price = 1 WHERE order_id = $1", ids[8])
    expect(
        ("fingerprint_differs", source(4), ids[4]),
        ("source_differs", source(16), ids[5]),
        ("undecided", source(6), ids[6]),
        ("outcome_without_row", f"{confirmed}-0@6", ids[6]),
        ("order_differs", source(7), ids[7]),
        ("items_differ", source(8), ids[8]),
    )

    # As `delete_order` does it: the books add up, so it is a remark.
    sql("UPDATE products SET stock_quantity = stock_quantity + 2 WHERE id = 1")
    sql("DELETE FROM orders WHERE id = $1", ids[10])
    expect()
    assert judged(reconcile).document["remarks"] == {
        "republished": 1,
        "letter_again": 1,
        "letter_of_nothing": 1,
        "order_deleted": 1,
    }

    sql("INSERT INTO orders (id, user_id, total_amount, placed_at) VALUES ($1, 1, 1, now())", ids[14])
    # It makes the one that was deleted suspect as well.
    sql("DELETE FROM orders WHERE id = $1", ids[11])
    expect(
        ("order_of_rejection", source(14), ids[14]),
        ("order_missing", source(11), ids[11]),
        ("order_missing", source(10), ids[10]),
        ("stock_differs", None, "1"),
    )
    published = reconcile("--limit", "3")
    assert published.code == 1
    assert "`order-worker republish --order-id" in published.out
    assert f"… and {len(known) - 3} more" in published.out


def test_records_without_any_result_are_found(scene: Scene, workers: Workers, reconcile: OrderWorker):
    """Skipped by moving the offsets forward, which is how it happens."""
    scene.shop.stock_up({1: 1_000})
    known = uuid4()
    scene.place([order_value(order_id=known)], partition=0)
    drain(scene, workers)
    lost = uuid4()
    scene.place([b"poison", order_value(line(1, 3), order_id=known), order_value(order_id=lost)], partition=0)
    scene.rewind("--to-latest")
    answer = judged(reconcile)
    place = f"{scene.topics.order_placed}-0@"
    assert found(answer) == {
        ("invalid_and_lost", f"{place}1", "None"),
        ("conflict_and_lost", f"{place}2", str(known)),
        ("undecided", f"{place}3", str(lost)),
    }
    (fix,) = [one["fix"] for one in answer.document["found"] if one["code"] == "undecided"]
    assert f"`order-worker replay --topic {scene.topics.order_placed}:0 --to-offset 3 --execute`" in fix


def test_what_retention_has_deleted_is_not_missing(scene: Scene, workers: Workers, reconcile: OrderWorker):
    scene.shop.stock_up({1: 1_000})
    values: list[bytes | None] = [order_value(line(1)) for _ in range(20)]
    scene.place([*values[:10], b"poison", *values[10:], b"poison"], partition=0)
    drain(scene, workers)
    delete_records(scene.kafka, scene.topics.order_placed, {0: 5})
    delete_records(scene.kafka, scene.topics.order_confirmed, {0: 8})
    delete_records(scene.kafka, scene.topics.dead_letter, {0: 1})
    answer = judged(reconcile)
    assert (answer.code, found(answer)) == (0, set())
    assert answer.document["records"] == 17
    assert answer.document["remarks"] == {"input_deleted": 5, "outcome_deleted": 3, "letter_deleted": 1}
    delete_records(scene.kafka, scene.topics.order_confirmed, {0: -1})
    assert judged(reconcile, "--from", "2026-01-01T00:00:00Z").document["remarks"]["outcome_deleted"] == 15


def test_what_compaction_may_have_removed_is_neither_missing_nor_published_again(
    scene: Scene, workers: Workers, reconcile: OrderWorker, aside: TopicNames
):
    scene.shop.stock_up({1: 1_000})
    scene.place([order_value(line(1)), order_value(line(1)), order_value(line(99))], partition=0)
    drain(scene, workers, order_confirmed_topic=aside.order_confirmed)
    assert judged(reconcile).document["discrepancies"] == {"not_told": 2}
    # Of an order that it has removed, by a record without a value, nothing is left after a day.
    set_option(scene.kafka, scene.topics.order_confirmed, "cleanup.policy", "compact,delete")
    answer = judged(reconcile, "--repair", "--execute")
    assert (answer.code, found(answer)) == (0, set())
    assert answer.document["remarks"] == {"outcome_deleted": 2}
    assert scene.confirmed() == []


def test_what_an_operator_skipped_is_counted_as_that_and_named(scene: Scene, reconcile: OrderWorker):
    scene.place([order_value(), b"poison", order_value(), order_value()], partition=0)
    scene.rewind("--to-latest")
    skip_offsets(scene, "skipped", 0, 3, "ada", "bad disk")
    skip_offsets(scene, "skipped", 90, 91, "bob", "of no concern here")
    answer = judged(reconcile)
    assert found(answer) == {("undecided", f"{scene.topics.order_placed}-0@3", found_id(answer))}
    assert answer.document["remarks"] == {"skipped": 3}
    (skip,) = answer.document["skips"]
    assert (skip["from_offset"], skip["to_offset"], skip["requested_by"]) == (0, 3, "ada")
    shown = reconcile.here().out
    assert f"{scene.topics.order_placed}-0: offsets 0 to 2 were skipped by ada at 2" in shown
    assert ": bad disk\n" in shown
    assert "skipped by an operator" in shown

    skip_offsets(scene, "skipped", 3, 4, "ada", "the rest")
    published = reconcile.here().done().out
    assert "nothing is missing but what was skipped or deleted: each of 0 records" in published


def test_what_was_deleted_before_it_was_decided_is_named(
    scene: Scene, workers: Workers, reconcile: OrderWorker
):
    scene.shop.stock_up({1: 1_000})
    scene.place([order_value(line(1)) for _ in range(10)], partition=0)
    drain(scene, workers)
    committed = scene.shop.value("SELECT begun_to FROM positions WHERE partition = 0")
    scene.place([order_value(line(1)) for _ in range(5)], partition=0)
    delete_records(scene.kafka, scene.topics.order_placed, {0: committed + 3})

    document = judged(reconcile).document
    assert document["skips"] == []
    assert document["deleted"] == [
        {"partition": 0, "from_offset": committed, "to_offset": committed + 3},
    ]
    words = f"offsets {committed} to {committed + 2} were deleted before they were decided, up to 3 records"
    assert f"{scene.topics.order_placed}-0: {words}\n" in reconcile.here().done().out

    skip_offsets(scene, "deleted", committed, committed + 3, "shop", "found at take-over")
    document = judged(reconcile).document
    assert ([skip["kind"] for skip in document["skips"]], document["deleted"]) == (["deleted"], [])
    assert f"-0: {words} (found 2" in reconcile.here().done().out
    assert judged(reconcile, "--from", "2026-01-01T00:00:00Z").document["skips"] == document["skips"]


def test_a_window_of_time_is_judged_alone(scene: Scene, workers: Workers, reconcile: OrderWorker):
    scene.shop.stock_up({1: 1_000})
    scene.place([order_value() for _ in range(5)], partition=0)
    drain(scene, workers)
    middle = scene.confirmed()[-1].timestamp + 1
    eventually(lambda: time.time() * 1_000 > middle + 5)
    scene.place([order_value() for _ in range(3)], partition=0)
    drain(scene, workers)
    moment = datetime.fromtimestamp(middle / 1_000, UTC).isoformat()
    later, before = judged(reconcile, "--from", moment), judged(reconcile, "--to", moment)
    assert (found(later), found(before)) == (set(), set())
    assert (later.document["records"], before.document["records"]) == (3, 5)


def test_while_a_worker_runs_nothing_in_flight_is_reported_or_published_twice(
    scene: Scene, workers: Workers, reconcile: OrderWorker
):
    scene.shop.stock_up({1: 1_000_000})
    ids = [uuid4() for _ in range(3_000)]
    workers.start(batch_max_records="20").wait_until_ready()
    scene.place([order_value(line(1), order_id=i) for i in ids])
    seen = []
    while scene.lag() != 0:
        answer = judged(reconcile, "--repair", "--execute")
        assert (answer.code, found(answer)) == (0, set()), answer.out
        seen.append(answer.document["waiting"])
    assert any(seen), "some run saw orders on their way"
    scene.assert_promises(ids)


def test_a_worker_that_has_committed_nothing_yet_is_no_reason_to_refuse(
    scene: Scene, workers: Workers, reconcile: OrderWorker
):
    scene.shop.stock_up({1: 1_000})
    ids = [uuid4() for _ in range(30)]
    scene.place([order_value(line(1), order_id=i) for i in ids])
    step = Step.AFTER_DATABASE_COMMIT
    at_step = (sys.executable, "-m", "tests.support.worker_at_step", step.value, "SIGSTOP")
    worker = workers.start(*at_step, session_timeout_ms="60000")
    worker.wait_for_log(f"SIGSTOP at {step}")
    answer = judged(reconcile, "--repair", "--execute")
    assert (answer.code, found(answer)) == (0, set()), answer.out
    assert (answer.document["records"], answer.document["waiting"]) == (0, 30)
    worker.signal(signal.SIGCONT)
    scene.wait_until_drained()
    scene.assert_promises(ids)


class TestBadInput:
    @pytest.mark.parametrize(
        ("arguments", "expected"),
        [
            (["--execute"], "--execute needs --repair"),
            (["--from", "2026-11-23T10:00:00"], "the time zone is missing"),
            (["--from", "2026-11-24T00:00:00Z", "--to", "2026-11-23T00:00:00Z"], "--from is later than --to"),
        ],
    )
    def test_wrong_usage_exits_2(self, arguments: list[str], expected: str):
        OrderWorker({}).here("reconcile", *arguments).assert_one_line(2, expected)

    def test_a_group_that_has_committed_nothing_proves_nothing(self, scene: Scene, reconcile: OrderWorker):
        assert judged(reconcile).code == 0
        scene.place([order_value()])
        other = reconcile.here(ORDER_WORKER_GROUP_ID="other")
        other.assert_one_line(1, "the group other has committed nothing")
        assert other.out == ""
        for_scripts = reconcile.here("--json", ORDER_WORKER_GROUP_ID="other")
        for_scripts.assert_one_line(1, "the group other has committed nothing")
        assert for_scripts.document == {"version": 1, "error": for_scripts.message}

    def test_a_role_that_may_not_make_temporary_tables_is_reported_what_it_needs(
        self, scene: Scene, reconcile: OrderWorker
    ):
        role = f"reader_{uuid4().hex[:8]}"
        database = scene.shop.value("SELECT current_database()")
        scene.shop.sql(f"REVOKE TEMPORARY ON DATABASE {database} FROM PUBLIC")
        scene.shop.sql(f"CREATE ROLE {role} LOGIN PASSWORD 'x'")
        try:
            scene.shop.sql(f"GRANT pg_read_all_data TO {role}")
            _, at, rest = scene.shop.database_url.partition("://")[2].rpartition("@")
            answer = reconcile.here(ORDER_WORKER_DATABASE_URL=f"postgresql://{role}:x{at}{rest}")
            answer.assert_one_line(1, "GRANT TEMPORARY ON DATABASE")
        finally:
            scene.shop.sql(f"DROP OWNED BY {role}")
            scene.shop.sql(f"DROP ROLE {role}")
