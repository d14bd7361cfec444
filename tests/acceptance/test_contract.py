"""Outcomes of a real worker, read by clients, validators and subscribers that are not ours."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from confluent_kafka import Consumer, TopicPartition
from jsonschema import Draft202012Validator

from contracts.schema import FOLDER, schemas
from tests.support import contract_tools
from tests.support.builders import line, order_value
from tests.support.deadline import eventually
from tests.support.order_worker import ROOT, OrderWorker
from tests.support.promises import Scene
from tests.support.subscriber import Message
from tests.support.worker_process import Workers
from worker.sandbox.servers.kafka import kafka_tool_command
from worker.sandbox.servers.processes import start_process

HEADERS = [
    ("correlation_id", "Kasse 7 – 注文 🛒".encode()),
    ("traceparent", b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
    ("supersedes", b"0d9c1f6e-1b7a-4a35-9a55-2f6a7f0c8e11"),
]


def place_all_kinds(scene: Scene) -> list[UUID]:
    """Orders of every outcome and reason, and what ends as a dead letter; the ids of the orders."""
    scene.shop.stock_up({1: 100, 2: 3}, price="2.50")
    ids = [uuid4() for _ in range(4)]
    confirmed, short, repriced, nobody = ids
    values = [
        order_value(line(1, 2), line(2, 1, "2.50"), order_id=confirmed),
        order_value(line(2, 9), order_id=short),
        order_value(line(1, 1, "2.49"), line(77), order_id=repriced),
        order_value(line(1), order_id=nobody, user_id=2**63 - 1),
    ]
    scene.place([*values, b"no order", None], headers=HEADERS)
    return ids


def headers_of(message: Message) -> bytes:
    """As JSON: of a name that is there twice the last counts."""
    return json.dumps({name: (value or b"").decode() for name, value in message.headers}).encode()


def against(schema: str, values: Iterable[bytes]) -> list[object]:
    """What jsonschema, and ajv where it is, have against the values."""
    values = list(values)
    validator = Draft202012Validator(schemas()[schema])
    found: list[object] = [error for value in values for error in validator.iter_errors(json.loads(value))]
    if contract_tools.are_there():
        found += contract_tools.of_values(FOLDER / f"{schema}.json", values)
    return found


@pytest.mark.timeout(600)
def test_outcomes_match_the_schemas_for_validators_and_clients_of_others(
    scene: Scene, workers: Workers, order_worker: OrderWorker
):
    place_all_kinds(scene)
    workers.start()
    scene.wait_until_drained()
    order_worker.of("republish").here("--all", "--execute").done()

    confirmed, rejected, letters = scene.confirmed(), scene.rejected(), scene.dead_letters()
    assert (len(confirmed), len(rejected), len(letters)) == (2, 6, 2)
    values = [message.value or b"" for message in [*confirmed, *rejected]]
    assert against("order-confirmed", values[:2]) == []
    assert against("order-rejected", values[2:]) == []
    assert against("outcome-headers", map(headers_of, [*confirmed, *rejected])) == []
    assert against("dead-letter-headers", map(headers_of, letters)) == []
    assert against("order-confirmed", values[2:]) != [], "they can say no"

    # Kafka's own client, which reads uncommitted records unless it is asked not to.
    console = kafka_tool_command(
        "org.apache.kafka.tools.consumer.ConsoleConsumer",
        *("--bootstrap-server", scene.kafka, "--from-beginning", "--isolation-level", "read_committed"),
        *("--include", f"{scene.topics.order_confirmed}|{scene.topics.order_rejected}"),
        *("--max-messages", str(len(values)), "--timeout-ms", "60000"),
        *("--formatter-property", "print.key=true", "--formatter-property", "print.headers=true"),
    )
    ran = subprocess.run(console, capture_output=True, timeout=120, check=True)
    seen = [row.split(b"\t") for row in ran.stdout.splitlines()]
    assert sorted(row[2] for row in seen) == sorted(values)
    assert all(row[1].decode() == json.loads(row[2])["order_id"] for row in seen)
    assert all(
        f"correlation_id:{HEADERS[0][1].decode()}".encode() in row[0]
        for row in seen
        if b"republished" not in row[0]
    )


# --- the examples ---


@dataclass(frozen=True)
class Subscriber:
    """One of the examples, with its state in a folder of its own."""

    command: list[str]
    folder: Path
    done: Callable[[Path], list[dict[str, Any]]]
    positions: Callable[[Path, Scene], dict[tuple[str, int], int]]

    def start(self, scene: Scene) -> subprocess.Popen[bytes]:
        arguments = [scene.kafka, scene.topics.order_confirmed, scene.topics.order_rejected]
        return start_process(
            [*self.command, *arguments],
            log_path=self.folder / "log",
            folder=self.folder,
            environment={**os.environ, "CONTRACT_KIT_STATE": str(self.folder)},
        )

    def has_read(self, scene: Scene, messages: list[tuple[str, Message]]) -> bool:
        """Whether it is behind all of them."""
        reached = self.positions(self.folder, scene)
        return all(reached.get((topic, m.partition), 0) > m.offset for topic, m in messages)

    def order_ids(self) -> list[str]:
        return sorted(str(effect["order_id"]) for effect in self.done(self.folder))


def _sqlite(folder: Path, statement: str) -> list[tuple[Any, ...]]:
    path = folder / "subscriber.db"
    if not path.exists():
        return []
    connection = sqlite3.connect(path, timeout=30)
    try:
        return connection.execute(statement).fetchall()
    except sqlite3.OperationalError:  # it has no tables yet
        return []
    finally:
        connection.close()


def _done_in_sqlite(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(effect) for (effect,) in _sqlite(folder, "SELECT effect FROM effects")]


def _positions_in_sqlite(folder: Path, _scene: Scene) -> dict[tuple[str, int], int]:
    return {(topic, part): next_ for topic, part, next_ in _sqlite(folder, "SELECT * FROM positions")}


def _done_in_file(folder: Path) -> list[dict[str, Any]]:
    path = folder / "done.json"
    return list(json.loads(path.read_text()).values()) if path.exists() else []


def _committed(_folder: Path, scene: Scene) -> dict[tuple[str, int], int]:
    consumer = Consumer({"bootstrap.servers": scene.kafka, "group.id": "subscriber-in-go", "log_level": 0})
    topics = (scene.topics.order_confirmed, scene.topics.order_rejected)
    try:
        asked = [TopicPartition(topic, number) for topic in topics for number in range(4)]
        return {(p.topic, p.partition): p.offset for p in consumer.committed(asked, timeout=20)}
    finally:
        consumer.close()


@pytest.fixture(params=["Python", "Go"])
def subscriber(request: pytest.FixtureRequest, tmp_path: Path) -> Subscriber:
    folder = tmp_path / "subscriber"
    folder.mkdir()
    if request.param == "Python":
        command = [sys.executable, str(ROOT / "examples" / "subscriber.py")]
        return Subscriber(command, folder, _done_in_sqlite, _positions_in_sqlite)
    return Subscriber([str(go_subscriber(tmp_path))], folder, _done_in_file, _committed)


def go_subscriber(folder: Path) -> Path:
    """The example in Go, built here."""
    if shutil.which("go") is None:
        pytest.skip("no Go to build examples/subscriber.go with")
    examples = ROOT / "examples"
    if subprocess.run(["go", "mod", "download"], cwd=examples, capture_output=True, timeout=120).returncode:
        pytest.skip("Go cannot get what examples/go.mod names")
    program = folder / "subscriber-in-go"
    subprocess.run(["go", "build", "-o", program, "subscriber.go"], cwd=examples, check=True, timeout=600)
    return program


@pytest.mark.timeout(600)
def test_a_subscriber_of_the_examples_does_everything_once(
    subscriber: Subscriber, scene: Scene, workers: Workers, order_worker: OrderWorker
):
    kit = ["-m", "contracts.kit", "--", *subscriber.command]
    assert subprocess.run([sys.executable, *kit], cwd=ROOT, timeout=180).returncode == 0

    ids = place_all_kinds(scene)
    workers.start()
    scene.wait_until_drained()
    running = subscriber.start(scene)
    try:
        eventually(lambda: len(subscriber.order_ids()) == len(ids), 60, lambda: log_of(subscriber))
        running.send_signal(signal.SIGKILL)
        running.wait(10)

        order_worker.of("republish").here("--all", "--execute").done()
        running = subscriber.start(scene)
        published = [
            *((scene.topics.order_confirmed, message) for message in scene.confirmed()),
            *((scene.topics.order_rejected, message) for message in scene.rejected()),
        ]
        assert len(published) == 2 * len(ids)
        eventually(lambda: subscriber.has_read(scene, published), 60, lambda: log_of(subscriber))
    finally:
        running.kill()
        running.wait(10)
    assert subscriber.order_ids() == sorted(map(str, ids))


def log_of(subscriber: Subscriber) -> str:
    return (subscriber.folder / "log").read_text(errors="replace")[-2000:]
