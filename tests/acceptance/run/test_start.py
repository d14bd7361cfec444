"""`order-worker run` at its start: what it says when it cannot, and what ends it soon after."""

import socket
import sys

import pytest

from tests.support.kafka_topics import admin_client
from tests.support.log_lines import log_lines
from tests.support.order_worker import OrderWorker
from tests.support.shop import Shop
from tests.support.worker_process import Workers
from worker.sandbox.servers.ports import free_port


@pytest.mark.usefixtures("topics")
def test_a_wrong_setting_is_named(run: OrderWorker):
    run(ORDER_WORKER_BATCH_MAX_RECORDS="none").assert_one_line(1, "ORDER_WORKER_BATCH_MAX_RECORDS")


@pytest.mark.usefixtures("topics")
def test_a_database_that_is_away_is_one_line_with_the_next_step(run: OrderWorker):
    url = f"postgresql://somebody:secret@127.0.0.1:{free_port()}/shop"
    result = run(ORDER_WORKER_DATABASE_URL=url)
    result.assert_one_line(1, "PostgreSQL", "ORDER_WORKER_DATABASE_URL")
    assert "secret" not in result.err


@pytest.mark.usefixtures("topics")
def test_a_broker_that_is_away_is_one_line_with_the_next_step(run: OrderWorker):
    result = run(ORDER_WORKER_KAFKA_BOOTSTRAP_SERVERS=f"127.0.0.1:{free_port()}")
    result.assert_one_line(1, "Kafka", "ORDER_WORKER_KAFKA_BOOTSTRAP_SERVERS")


def test_missing_topics_are_named_with_the_command_that_makes_them(run: OrderWorker):
    run().assert_one_line(1, run.env["ORDER_WORKER_ORDER_PLACED_TOPIC"], "order-worker topics create")


@pytest.mark.usefixtures("topics")
def test_missing_tables_are_named_with_the_command_that_makes_them(run: OrderWorker):
    run(ORDER_WORKER_DATABASE_SCHEMA="another").assert_one_line(1, "another", "order-worker db upgrade")


def test_what_keeps_a_worker_from_starting_is_a_line_of_its_log_where_that_is_json(run: OrderWorker):
    result = run(OTEL_EXPORTER_OTLP_ENDPOINT="nonsense", ORDER_WORKER_LOG_FORMAT="json")
    assert result.code == 2, result
    (said,) = log_lines(result.err)
    assert (said["event"], said["exit_code"]) == ("worker_fails", 2)
    assert "OTEL_EXPORTER_OTLP_ENDPOINT is no URL" in said["message"]


@pytest.mark.usefixtures("topics")
def test_a_port_that_is_taken_is_one_line_with_the_next_step(run: OrderWorker):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        taken_port = run(ORDER_WORKER_HTTP_PORT=str(port))
        taken_port.assert_one_line(1, f":{port} (address already in use): set ORDER_WORKER_HTTP_PORT")


def test_a_consumer_that_cannot_start_ends_the_worker_instead_of_leaving_it_idle(workers: Workers):
    code = """
import sys
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaConnectionError
from worker.runtime.process import run
from worker.settings import read_settings
async def start(self):
    raise KafkaConnectionError("gone between the check and the start")
AIOKafkaConsumer.start = start
sys.exit(run(read_settings()))
"""
    worker = workers.start(sys.executable, "-c", code)
    assert worker.wait() == 1
    assert "gone between the check and the start" in worker.log
    assert "Traceback" not in worker.log


@pytest.mark.parametrize("when", ["at once", "assigned"])
def test_a_background_task_that_fails_ends_the_worker_and_the_log_says_why(workers: Workers, when: str):
    code = """
import asyncio, sys
from worker.pipeline.maintenance import Maintenance
from worker.runtime.process import run
from worker.settings import read_settings
async def fail(self):
    while sys.argv[1] == "assigned" and not self.health.partitions():
        await asyncio.sleep(0.01)
    raise ValueError("a fault that nobody foresaw")
Maintenance.run = fail
sys.exit(run(read_settings()))
"""
    worker = workers.start(sys.executable, "-c", code, when)
    assert worker.wait() == 1, worker.log
    assert "a fault that nobody foresaw" in worker.log


def test_a_worker_whose_consumer_fetches_no_more_ends_to_be_started_again(workers: Workers):
    code = """
import sys
from worker.pipeline.maintenance import Maintenance
from worker.runtime.process import run
from worker.settings import read_settings
async def stop_fetching(self, consumer):
    if consumer.assignment():
        consumer._fetcher._fetch_task.cancel()
Maintenance._repair = stop_fetching
sys.exit(run(read_settings()))
"""
    worker = workers.start(sys.executable, "-c", code)
    assert worker.wait() == 1, worker.log
    assert "a task of aiokafka's has ended" in worker.log


def test_the_worker_reads_no_topic_it_has_to_create(run: OrderWorker, shop: Shop):
    run()
    admin = admin_client(run.env["ORDER_WORKER_KAFKA_BOOTSTRAP_SERVERS"])
    assert run.env["ORDER_WORKER_ORDER_PLACED_TOPIC"] not in admin.list_topics(timeout=10).topics
    assert shop.value("SELECT count(*) FROM order_outcomes") == 0
