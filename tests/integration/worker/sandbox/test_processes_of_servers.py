"""Local servers end with who started them, and leave no process and no data."""

import os
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import psutil
import pytest

from worker.sandbox.servers import (
    LocalServiceError,
    accounts,
    processes,
    running_services,
    services,
)
from worker.sandbox.servers.folders import data_folder
from worker.sandbox.servers.kafka import LocalKafka
from worker.sandbox.servers.postgres import LocalPostgres
from worker.sandbox.servers.processes import Child, wait_until

ROOT = Path(__file__).parents[4]


@pytest.fixture
def without_docker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "docker_answers", lambda: False)


@pytest.mark.usefixtures("without_docker")
def test_the_end_leaves_no_process_and_no_data() -> None:
    said: list[str] = []
    before = descendants()
    with running_services(report=said.append) as running:
        started = descendants() - before
        folder = running.kafka.folder  # type: ignore[union-attr]
        assert len(started) > 2

    assert not any(psutil.pid_exists(pid) for pid in started)
    assert not folder.exists()
    assert any(sentence.startswith("PostgreSQL ready in") for sentence in said)
    assert any(sentence.startswith("Kafka ready in") for sentence in said)


@pytest.mark.usefixtures("without_docker")
def test_postgres_is_stopped_when_kafka_cannot_start(monkeypatch: pytest.MonkeyPatch) -> None:
    ports: list[int] = []
    reported = threading.Event()

    def start(self: LocalKafka) -> None:
        assert reported.wait(10)
        ports.extend(port for port in listening_ports() if port != self.port)
        raise LocalServiceError("no Kafka today")

    monkeypatch.setattr(LocalKafka, "start", start)
    before = descendants()

    said = lambda sentence: reported.set() if sentence.startswith("PostgreSQL ready") else None  # noqa: E731
    with pytest.raises(LocalServiceError, match="no Kafka today"), running_services(report=said):
        pytest.fail("it must not get here")
    assert ports
    assert descendants() == before


def test_ctrl_c_while_they_start_leaves_nothing(tmp_path: Path) -> None:
    script = (
        "from worker.sandbox.servers import running_services\n"
        "with running_services(report=lambda sentence: print(sentence, flush=True)):\n"
        "    print('too late', flush=True)\n"
    )
    parent = start_script(script, tmp_path)
    while not (sentence := read_line(parent)).startswith("PostgreSQL ready"):
        assert not sentence.startswith("Kafka ready")
    started = [child.pid for child in psutil.Process(parent.pid).children(recursive=True)]
    parent.send_signal(signal.SIGINT)
    printed, errors = parent.communicate(timeout=10)

    assert "too late" not in printed
    assert errors.rstrip().endswith("KeyboardInterrupt")
    assert not any(runs(pid) for pid in started)
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("without_docker")
def test_servers_die_with_a_parent_that_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = (
        "from worker.sandbox.servers import running_services\n"
        "import psutil, time\n"
        "with running_services():\n"
        "    print(*[child.pid for child in psutil.Process().children(recursive=True)], flush=True)\n"
        "    time.sleep(60)\n"
    )
    parent = start_script(script, tmp_path)
    started = [int(pid) for pid in read_line(parent).split()]
    assert len(started) > 2
    kill(parent)

    assert wait_until(lambda: not any(runs(pid) for pid in started), 10)
    (abandoned,) = tmp_path.iterdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with data_folder() as next_one:
        assert list(tmp_path.iterdir()) == [next_one] != [abandoned]


@pytest.mark.parametrize("by_the_kernel", [True, False])
def test_a_child_dies_with_its_parent_with_and_without_the_kernels_help(
    by_the_kernel: bool, tmp_path: Path
) -> None:
    if by_the_kernel and not processes.KERNEL_KILLS_ORPHANS:
        pytest.skip("only Linux does that")
    script = (
        "import time, threading; from pathlib import Path; from worker.sandbox.servers import processes\n"
        f"processes.KERNEL_KILLS_ORPHANS = {by_the_kernel}\n"
        f"child = processes.Child('sleeper', Path({str(tmp_path)!r}) / 'log')\n"
        f"start = lambda: child.spawn(['/bin/sleep', '60'], folder=Path({str(tmp_path)!r}))\n"
        # From a thread that ends: the child must outlive the thread, not the process.
        "thread = threading.Thread(target=start); thread.start(); thread.join(); time.sleep(0.3)\n"
        "print(child.pid if child.alive else 'dead', flush=True); time.sleep(60)\n"
    )
    parent = start_script(script, tmp_path)
    pid = int(read_line(parent))
    kill(parent)

    assert wait_until(lambda: not runs(pid), 5)


def test_a_stopped_child_is_not_started_again_by_a_late_thread(tmp_path: Path) -> None:
    child = Child("sleeper", tmp_path / "log")
    child.abandon()
    with pytest.raises(LocalServiceError, match="sleeper was stopped"):
        child.spawn(["/bin/sleep", "60"], folder=tmp_path)


def test_a_server_that_cannot_start_shows_the_end_of_its_log() -> None:
    with data_folder() as folder:
        postgres = LocalPostgres(folder, settings={"shared_buffers": "a lot"})
        with pytest.raises(LocalServiceError, match=r"PostgreSQL ended while starting.*shared_buffers"):
            postgres.start()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has the choice")
def test_root_without_user_namespaces_runs_postgres_as_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounts, "_works", lambda programs, options: False)
    with data_folder() as folder:
        postgres = LocalPostgres(folder)
        try:
            postgres.start()
            assert psutil.Process(postgres.pid).username() == "nobody"
            postgres.crash()
            postgres.start()
        finally:
            postgres.stop()


def descendants() -> set[int]:
    return {child.pid for child in psutil.Process().children(recursive=True)}


def listening_ports() -> list[int]:
    return [
        connection.laddr.port
        for child in psutil.Process().children(recursive=True)
        for connection in child.net_connections(kind="tcp")
        if connection.status == psutil.CONN_LISTEN
    ]


def runs(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def start_script(script: str, temporary: Path) -> "subprocess.Popen[str]":
    environment = os.environ | {"ORDER_WORKER_NO_DOCKER": "1", "TMPDIR": str(temporary)}
    return subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def read_line(process: "subprocess.Popen[str]") -> str:
    assert process.stdout
    line = process.stdout.readline()
    assert line, "the script ended early"
    return line


def kill(process: "subprocess.Popen[str]") -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate()
