"""`order-worker reconcile`: a clean shop is clean, and each discrepancy is found."""

import time
from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest

from tests.acceptance.reconcile.reports import Found, drain, found, judged
from tests.support.builders import line, order_value
from tests.support.deadline import eventually
from tests.support.order_worker import OrderWorker
from tests.support.promises import Scene
from tests.support.publishing import publish
from tests.support.subscriber import end_of
from tests.support.worker_process import Workers

pytestmark = pytest.mark.guarantee_3


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
