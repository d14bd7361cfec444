"""A running worker: its endpoints, when it is ready, its log, and FastStream's own command."""

import json
import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from uuid import uuid4

from tests.support.builders import line, order_value
from tests.support.deadline import eventually
from tests.support.promises import Scene
from tests.support.topic_names import PARTITIONS
from tests.support.worker_process import ROOT, RUN, Workers
from worker.sandbox.servers.ports import free_port


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
