"""`order-worker run` as its operators meet it: start, stop, endpoints, and what it says when it cannot."""

import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest

from tests.support.builders import line, order_value
from tests.support.deadline import eventually
from tests.support.log_lines import log_lines
from tests.support.order_worker import OrderWorker
from tests.support.promises import Scene
from tests.support.shop import Shop
from tests.support.subscriber import admin_client, group_members
from tests.support.topic_names import PARTITIONS, TopicNames
from tests.support.worker_process import ROOT, RUN, WorkerProcess, Workers, workers_in
from worker.core.steps import Step
from worker.sandbox.servers.ports import free_port


@pytest.fixture
def workers(env: dict[str, str], topics: TopicNames, tmp_path: Path) -> Iterator[Workers]:
    """Started by their command, as users do."""
    with workers_in(env, tmp_path) as started:
        yield started


@pytest.fixture
def run(order_worker: OrderWorker) -> OrderWorker:
    """Executed, as users do."""
    return replace(order_worker.of("run"), template=None)


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


@contextmanager
def products_locked(scene: Scene) -> Iterator[None]:
    """Another session holds every product, so that a batch in flight cannot end by itself."""
    command = [sys.executable, "-m", "tests.support.lock_holder", scene.shop.database_url]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "locked\n"
        try:
            yield
        finally:
            holder.kill()


PATIENT = {"lock_timeout_ms": "60000", "statement_timeout_ms": "60000", "session_timeout_ms": "2000"}


def wait_for_a_waiting_batch(scene: Scene) -> None:
    eventually(lambda: scene.shop.value("SELECT count(*) FROM pg_locks WHERE NOT granted") > 0)


def test_sigterm_finishes_the_batch_in_flight_leaves_the_group_and_exits_0(scene: Scene, workers: Workers):
    scene.shop.stock_up({1: 100_000})
    ids = [uuid4() for _ in range(2_000)]
    scene.place([order_value(line(1), order_id=i) for i in ids])
    with products_locked(scene):
        worker = workers.start(**PATIENT, batch_max_records="200")
        wait_for_a_waiting_batch(scene)
        worker.signal(signal.SIGTERM)
        worker.wait_for_log("finishing the batch in flight")
    assert worker.wait() == 0
    decided = scene.shop.value("SELECT count(*) FROM order_outcomes")
    assert 0 < decided < len(ids)
    assert len(scene.confirmed()) == decided, "the batch in flight was finished: nothing waits in the ledger"
    workers.start()
    scene.wait_until_drained()
    scene.assert_promises(ids)


def test_stopped_twice_it_leaves_at_once_and_nothing_is_lost(scene: Scene, workers: Workers):
    scene.shop.stock_up({1: 100})
    ids = [uuid4() for _ in range(20)]
    scene.place([order_value(line(1), order_id=i) for i in ids])
    with products_locked(scene):
        worker = workers.start(**PATIENT)
        wait_for_a_waiting_batch(scene)
        worker.signal(signal.SIGTERM)
        worker.wait_for_log("finishing the batch in flight")
        worker.signal(signal.SIGTERM)
        assert worker.wait(5) == 130
    workers.start()
    scene.wait_until_drained()
    scene.assert_promises(ids)


def test_a_batch_that_does_not_end_in_time_is_left_behind_at_shutdown(scene: Scene, workers: Workers):
    scene.shop.stock_up({1: 100})
    ids = [uuid4() for _ in range(20)]
    scene.place([order_value(line(1), order_id=i) for i in ids])
    with products_locked(scene):
        worker = workers.start(**PATIENT, shutdown_timeout_seconds="1")
        wait_for_a_waiting_batch(scene)
        worker.signal(signal.SIGTERM)
        assert worker.wait(10) == 1
    workers.start()
    scene.wait_until_drained()
    scene.assert_promises(ids)


def test_a_stall_ends_the_worker_with_3_so_that_it_is_started_again(scene: Scene, workers: Workers):
    scene.shop.stock_up({1: 10})
    scene.place([order_value(line(1))])
    worker = workers.start(
        *(sys.executable, "-m", "tests.support.worker_at_step", Step.BEFORE_DATABASE_COMMIT.value, "hang"),
        stall_limit_seconds="5",
    )
    assert worker.wait() == 3
    assert "no progress" in worker.log


def processes_of(supervisor: WorkerProcess) -> list[int]:
    """Of its workers, by their numbers, as long as none was started again."""
    found = dict(re.findall(r"worker (\d) is process (\d+)", supervisor.log))
    return [int(found[number]) for number in sorted(found)]


def test_several_workers_share_the_partitions_and_a_killed_one_is_started_again(
    scene: Scene, workers: Workers
):
    scene.shop.stock_up({1: 100_000})
    supervisor = workers.start(*RUN, "--workers", "2", session_timeout_ms="2000")
    eventually(lambda: len(re.findall(r"assigned partitions: \d, \d$", supervisor.log, re.MULTILINE)) >= 2)
    os.kill(processes_of(supervisor)[0], signal.SIGKILL)
    eventually(lambda: supervisor.log.count("worker 0 is process") == 2)
    ids = [uuid4() for _ in range(500)]
    scene.place([order_value(line(1), order_id=i) for i in ids])
    scene.wait_until_drained()
    assert supervisor.stop() == 0
    scene.assert_promises(ids)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits another process")
def test_a_worker_that_cannot_be_started_again_now_does_not_end_the_others(workers: Workers):
    supervisor = workers.start(*RUN, "--workers", "2")
    supervisor.wait_for_log("worker 1 is process")
    files = resource.prlimit(supervisor.process.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(supervisor.process.pid, resource.RLIMIT_NOFILE, (3, files[1]))
    os.kill(processes_of(supervisor)[0], signal.SIGKILL)
    supervisor.wait_for_log("worker 0 cannot be started (too many open files)")
    resource.prlimit(supervisor.process.pid, resource.RLIMIT_NOFILE, files)
    eventually(lambda: supervisor.log.count("worker 0 is process") == 2)
    assert supervisor.stop() == 0


def test_workers_that_are_all_stopped_with_their_supervisor_finish_their_batch(
    scene: Scene, workers: Workers
):
    """As systemd does: each process gets the signal, and from the supervisor once more."""
    scene.shop.stock_up({1: 100})
    ids = [uuid4() for _ in range(20)]
    scene.place([order_value(line(1), order_id=i) for i in ids])
    with products_locked(scene):
        supervisor = workers.start(*RUN, "--workers", "2", **PATIENT)
        wait_for_a_waiting_batch(scene)
        for process in (supervisor.process.pid, *processes_of(supervisor)):
            os.kill(process, signal.SIGTERM)
        supervisor.wait_for_log("finishing the batch in flight")
        with pytest.raises(subprocess.TimeoutExpired):
            supervisor.wait(1)
    assert supervisor.wait() == 0
    assert "stopped twice" not in supervisor.log
    assert len(scene.confirmed()) == scene.shop.value("SELECT count(*) FROM order_outcomes") > 0


def test_workers_whose_supervisor_is_stopped_twice_leave_at_once(scene: Scene, workers: Workers):
    scene.shop.stock_up({1: 100})
    scene.place([order_value(line(1))])
    with products_locked(scene):
        supervisor = workers.start(*RUN, "--workers", "2", **PATIENT)
        wait_for_a_waiting_batch(scene)
        supervisor.signal(signal.SIGTERM)
        supervisor.signal(signal.SIGINT)
        assert supervisor.wait(15) == 130


def test_workers_that_are_stopped_while_they_start_end_well(scene: Scene, workers: Workers):
    supervisor = workers.start(*RUN, "--workers", "2")
    supervisor.wait_for_log("worker 1 is process")
    eventually(lambda: supervisor.catches(signal.SIGTERM))
    assert supervisor.stop() == 0


def test_workers_end_with_a_supervisor_that_is_killed(scene: Scene, workers: Workers):
    supervisor = workers.start(*RUN, "--workers", "2", session_timeout_ms="2000")
    eventually(lambda: group_members(scene.kafka, scene.group_id) == 2)
    supervisor.kill()
    eventually(lambda: group_members(scene.kafka, scene.group_id) == 0)


def test_several_workers_that_cannot_start_say_so_and_end(run: OrderWorker):
    result = run("--workers", "2")
    assert result.code == 1
    assert "order-worker topics create" in result.err


def test_several_workers_are_not_taken_from_the_folder_they_are_started_in(run: OrderWorker, tmp_path: Path):
    """They were: a project with a `worker.py` of its own was started in their place, again and again."""
    (tmp_path / "worker.py").write_text('print("a worker of somebody else")')
    (tmp_path / "db").mkdir()
    (tmp_path / "db" / "__init__.py").touch()
    ended = subprocess.run(
        [Path(sys.executable).with_name("order-worker"), "run", "--workers", "2"],
        cwd=tmp_path,
        env={**os.environ, **run.env},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "somebody else" not in ended.stdout + ended.stderr
    assert (ended.returncode, "order-worker topics create" in ended.stderr) == (1, True)


def test_the_endpoints_answer(scene: Scene, workers: Workers):
    worker = workers.start().wait_until_ready()
    assert worker.get("/livez") == (200, '{"alive": true}')
    eventually(lambda: json.loads(worker.get("/readyz")[1])["partitions"] == list(range(PARTITIONS)))
    status, document = worker.get("/docs.json")
    assert status == 200
    described = json.loads(document)
    payload = described["components"]["messages"][f"{scene.topics.order_placed}:SubscribeMessage"]["payload"]
    assert payload == {"$ref": "#/components/schemas/OrderPlaced"}
    channels = described["channels"]
    addresses = {channel["address"] for channel in channels.values()}
    assert {scene.topics.order_placed, scene.topics.order_confirmed, scene.topics.order_rejected} <= addresses
    status, contract = worker.get("/asyncapi.json")
    assert status == 200
    published = {channel["address"] for channel in json.loads(contract)["channels"].values()}
    assert published == {*vars(scene.topics).values()}
    status, page = worker.get("/docs")
    assert status == 200
    loaded = re.findall(r'<(?:script|link rel="stylesheet")[^>]*(?:src|href)="([^"]+)"', page)
    assert loaded == ["assets/asyncapi.css", "assets/asyncapi.js"], "the page works offline"
    assert worker.get("/assets/asyncapi.css")[0] == 200
    assert worker.get("/nowhere")[0] == 404


def test_a_closed_terminal_stops_a_worker_as_sigterm_does_though_it_is_said_twice(workers: Workers):
    worker = workers.start().wait_until_ready()
    worker.signal(signal.SIGHUP)  # the kernel's
    worker.wait_for_log("stopping: finishing the batch in flight")
    worker.signal(signal.SIGHUP)  # the shell's
    assert worker.wait() == 0
    assert "stopped twice" not in worker.log


def test_a_log_that_nobody_reads_stops_no_order(scene: Scene, workers: Workers):
    scene.shop.stock_up({1: 10})
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writer, b"x" * 4_096)
    os.set_blocking(writer, True)
    environment = {**os.environ, **workers.environment}
    with subprocess.Popen(RUN, cwd=ROOT, env=environment, stderr=writer) as worker:
        try:
            scene.place([order_value(line(1))])
            scene.wait_until_drained()
            worker.terminate()
            assert worker.wait(30) == 0
        finally:
            worker.kill()
            os.close(reader)
            os.close(writer)


def test_a_worker_is_ready_once_it_has_joined_and_stays_so_in_a_rebalance(workers: Workers):
    """A rolling update would otherwise go on while nobody owns the partitions of the previous worker."""
    first = workers.start(session_timeout_ms="30000").wait_until_ready()
    first.signal(signal.SIGSTOP)  # the group waits for it
    second = workers.start()
    second.wait_for_log("health, metrics and docs on")
    eventually(lambda: "joining its consumer group" in second.get("/readyz")[1], 30)
    assert second.get("/readyz")[0] == 503
    first.signal(signal.SIGCONT)
    seen = set[int]()

    def is_joined() -> bool:
        seen.add(first.get("/readyz")[0])
        return second.get("/readyz")[0] == 200

    eventually(is_joined, 30, lambda: second.get("/readyz")[1])
    assert seen == {200}


def test_a_worker_that_is_stopped_while_it_joins_leaves_the_group_at_once(scene: Scene, workers: Workers):
    """It waited up to 15 s for its turn, and the others then up to 10 s for it, though it was gone."""
    first = workers.start(session_timeout_ms="30000").wait_until_ready()
    first.signal(signal.SIGSTOP)  # the group waits for it
    second = workers.start()
    eventually(lambda: group_members(scene.kafka, scene.group_id) == 2, 60)
    second.signal(signal.SIGTERM)
    assert second.wait(10) == 0
    assert group_members(scene.kafka, scene.group_id) == 1
    assert "no answer" not in second.log


def test_faststreams_own_command_runs_the_worker_too(scene: Scene, workers: Workers):
    scene.shop.stock_up({1: 10})
    ids = [uuid4() for _ in range(3)]
    scene.place([order_value(line(1), order_id=i) for i in ids])
    worker = workers.start(
        sys.executable, "-m", "faststream", "run", "worker.app:app", "--port", str(free_port())
    )
    scene.wait_until_drained()
    scene.assert_promises(ids)
    assert worker.stop() in (0, -signal.SIGTERM), worker.log


def test_the_worker_reads_no_topic_it_has_to_create(run: OrderWorker, shop: Shop):
    run()
    admin = admin_client(run.env["ORDER_WORKER_KAFKA_BOOTSTRAP_SERVERS"])
    assert run.env["ORDER_WORKER_ORDER_PLACED_TOPIC"] not in admin.list_topics(timeout=10).topics
    assert shop.value("SELECT count(*) FROM order_outcomes") == 0
