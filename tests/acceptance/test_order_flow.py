"""A placed order becomes one outcome, seen by a client nobody here wrote."""

from datetime import datetime
from uuid import UUID, uuid4

import pytest
from confluent_kafka import Producer

from bench.crew import peak_bytes
from contracts.envelope import event_id
from tests.support.builders import line, order_value
from tests.support.deadline import eventually
from tests.support.order_worker import OrderWorker
from tests.support.promises import Scene
from tests.support.worker_process import Workers

pytestmark = [pytest.mark.guarantee_1, pytest.mark.guarantee_2, pytest.mark.guarantee_3]


def test_orders_are_confirmed_and_rejected_for_each_reason(scene: Scene, workers: Workers):
    scene.shop.stock_up({1: 10, 2: 10, 3: 5})
    fits, unknown_user, unknown_product, short, summed, repriced, all_at_once = (uuid4() for _ in range(7))
    traced = [
        ("correlation_id", b"checkout-7"),
        ("traceparent", b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01"),
    ]
    scene.place([order_value(line(1, 2), line(2, 1, "2.50"), order_id=fits)], partition=0, headers=traced)
    scene.place(
        [
            order_value(line(1), order_id=unknown_user, user_id=99),
            order_value(line(1), line(77), order_id=unknown_product),
            order_value(line(3, 6), order_id=short),
            order_value(line(3, 3), line(3, 3), order_id=summed),
            order_value(line(1, 1, "2.49"), order_id=repriced),
            order_value(line(77), line(3, 6), line(1, 1, "2.49"), order_id=all_at_once, user_id=99),
        ],
        partition=0,
    )
    worker = workers.start().wait_until_ready()
    scene.wait_until_drained()

    (confirmed,) = scene.confirmed()
    assert confirmed.key == str(fits).encode()
    event = confirmed.event
    assert event.pop("decided_at")
    assert event == {
        "order_id": str(fits),
        "user_id": 1,
        "total_amount": "7.50",
        "items": [
            {"product_id": 1, "quantity": 2, "unit_price": "2.50"},
            {"product_id": 2, "quantity": 1, "unit_price": "2.50"},
        ],
        "placed_at": "2026-11-23T10:00:00Z",
    }
    headers = dict(confirmed.headers)
    assert datetime.fromisoformat(headers.pop("ce_time").decode()).tzinfo is not None  # type: ignore[union-attr]
    assert headers == {
        "ce_specversion": b"1.0",
        "ce_id": str(event_id(fits)).encode(),
        "ce_source": b"/order-worker",
        "ce_type": b"order-confirmed",
        "ce_dataschema": b"urn:order-worker:order-confirmed:v1",
        "ce_subject": str(fits).encode(),
        "content-type": b"application/json",
        "correlation_id": b"checkout-7",
        "traceparent": traced[1][1],
    }

    reasons = {m.event["order_id"]: (m.event["reasons"], m.event["retryable"]) for m in scene.rejected()}
    missing = {"code": "insufficient_stock", "product_id": 3, "requested": 6, "available": 5}
    price = {
        "code": "price_changed",
        "product_id": 1,
        "expected_unit_price": "2.49",
        "current_unit_price": "2.50",
    }
    assert reasons == {
        str(unknown_user): ([{"code": "unknown_user"}], False),
        str(unknown_product): ([{"code": "unknown_product", "product_id": 77}], False),
        str(short): ([missing], True),
        str(summed): ([missing], True),
        str(repriced): ([price], False),
        str(all_at_once): (
            [{"code": "unknown_user"}, {"code": "unknown_product", "product_id": 77}, missing, price],
            False,
        ),
    }
    scene.assert_promises([fits, unknown_user, unknown_product, short, summed, repriced, all_at_once])
    assert scene.shop.stock() == {1: 8, 2: 9, 3: 5}

    status, metrics = worker.get("/metrics")
    assert status == 200
    assert "order_worker_orders_confirmed_total 1.0" in metrics
    assert 'order_worker_rejection_reasons_total{code="insufficient_stock"} 3.0' in metrics
    assert worker.stop() == 0


def test_duplicates_across_partitions_and_restarts_are_decided_once(scene: Scene, workers: Workers):
    scene.shop.stock_up({1: 100})
    ids = [uuid4() for _ in range(5)]
    values = [order_value(line(1), order_id=i) for i in ids]
    scene.place(values + values, partition=0)
    scene.place(values, partition=1)
    worker = workers.start()
    scene.wait_until_drained()
    assert worker.stop() == 0
    scene.place(values, partition=2)
    workers.start()
    scene.wait_until_drained()
    scene.assert_promises(ids)
    assert scene.shop.stock() == {1: 95}


def test_the_same_id_with_other_content_is_a_dead_letter(scene: Scene, workers: Workers):
    scene.shop.stock_up({1: 100})
    order_id = uuid4()
    other = order_value(line(1, 7), order_id=order_id)
    scene.place([order_value(line(1), order_id=order_id), other], partition=0)
    workers.start()
    scene.wait_until_drained()
    (letter,) = scene.dead_letters()
    assert letter.value == other
    assert (letter.header("error.code"), letter.header("error.path")) == (
        "order_id_conflict",
        "items.0.quantity",
    )
    assert (letter.header("source.partition"), letter.header("source.offset")) == ("0", "1")
    scene.assert_promises([order_id], dead_letters=1)


def test_lines_in_another_order_are_a_duplicate_and_another_time_a_conflict(
    scene: Scene, workers: Workers, order_worker: OrderWorker
):
    scene.shop.stock_up({1: 100, 2: 100})
    confirmed, rejected = uuid4(), uuid4()
    first = [
        order_value(line(1), line(2, 3), order_id=confirmed),
        order_value(line(1), line(9), order_id=rejected),
    ]
    turned = [
        order_value(line(2, 3), line(1), order_id=confirmed),
        order_value(line(9), line(1), order_id=rejected),
    ]
    scene.place([*first, *turned], partition=0)
    worker = workers.start()
    scene.wait_until_drained()
    assert worker.stop() == 0
    others = [order_value(line(1), line(2, 3), order_id=confirmed, placed_at="2026-11-23T10:00:01Z")]
    scene.place([*turned, *others], partition=1)
    workers.start()
    scene.wait_until_drained()
    (letter,) = scene.dead_letters()
    text = (
        "placed_at differs from the decided order's (2026-11-23T10:00:01Z here, 2026-11-23T10:00:00Z there)"
    )
    assert (letter.value, letter.header("error.path")) == (others[0], "placed_at")
    assert letter.header("error.message") == f"{text}; that decision stands"
    explained = order_worker("explain", str(confirmed), "--scan", "all").out
    assert explained.count("duplicate: the same order again") == 2
    assert f"conflict: another order under this id, a dead letter: {text}" in explained
    scene.assert_promises([confirmed, rejected], dead_letters=1)
    proof = order_worker("reconcile", "--json")
    assert proof.code == 0, proof.out
    assert proof.document["results"] == {"confirmed": 1, "rejected": 1, "duplicate": 4, "dead_letter": 1}


@pytest.mark.guarantee_4
def test_first_come_first_served_by_partition_offset(scene: Scene, workers: Workers):
    scene.shop.stock_up({1: 10})
    ids = [uuid4() for _ in range(30)]
    scene.place([order_value(line(1), order_id=i) for i in ids], partition=0)
    workers.start(batch_max_records="7")
    scene.wait_until_drained()
    assert {m.event["order_id"] for m in scene.confirmed()} == {str(i) for i in ids[:10]}
    scene.assert_promises(ids)


def test_orders_are_decided_whatever_their_producer_compresses_them_with(scene: Scene, workers: Workers):
    scene.shop.stock_up({1: 200})
    ids: list[UUID] = []
    for codec in ("gzip", "snappy", "lz4", "zstd"):
        ids += (compressed := [uuid4() for _ in range(50)])
        orders = [order_value(line(1), order_id=i) for i in compressed]
        scene.place(orders, partition=0, compression=codec)
    worker = workers.start()
    scene.wait_until_drained()
    scene.assert_promises(ids)
    assert worker.stop() == 0


def test_a_backlog_that_is_small_only_when_compressed_is_not_unpacked_at_once(scene: Scene, workers: Workers):
    scene.shop.stock_up(dict.fromkeys(range(1, 501), 1))
    large = order_value(*map(line, range(1, 501)), order_id=(order_id := uuid4()))
    scene.place([large] * (200_000_000 // len(large)), partition=0, compression="zstd")
    worker = workers.start()
    scene.wait_until_drained(240)  # 200 MB of JSON, on however busy a machine
    scene.assert_promises([order_id])
    assert peak_bytes(worker.process.pid) < 200_000_000
    assert worker.stop() == 0


def test_orders_of_an_aborted_upstream_transaction_are_not_decided_and_leave_no_lag(
    scene: Scene, workers: Workers
):
    scene.shop.stock_up({1: 10})
    aborted, committed = uuid4(), uuid4()
    producer = Producer(
        {"bootstrap.servers": scene.kafka, "transactional.id": f"upstream-{uuid4()}", "log_level": 0}
    )
    producer.init_transactions(20)
    for order_id in (aborted, committed):
        producer.begin_transaction()
        producer.produce(scene.topics.order_placed, order_value(line(1), order_id=order_id), partition=0)
        producer.flush(20)
        producer.abort_transaction(20) if order_id == aborted else producer.commit_transaction(20)

    worker = workers.start().wait_until_ready()
    eventually(lambda: scene.confirmed())
    assert [m.header("ce_subject") for m in scene.outcomes()] == [str(committed)]
    assert scene.shop.stock() == {1: 9}
    # The last offset is the transaction's marker, which nobody ever decides.
    eventually(lambda: 'order_worker_consumer_lag_records{partition="0"} 0.0' in worker.get("/metrics")[1])
