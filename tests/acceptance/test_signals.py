"""Ctrl-C and SIGTERM at any moment of a command's life, beginning with its first."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.deadline import eventually
from tests.support.order_worker import ROOT

SIGNALS = (signal.SIGINT, signal.SIGTERM)
IGNORED = (signal.SIGINT, signal.SIGHUP)
DELAYS_MS = (0, 5, 20, 50, 100, 200, 400)
COMMANDS = (
    ("run",),
    ("run", "--workers", "2"),
    ("lag",),
    ("db", "upgrade"),
)
PROGRAM = (sys.executable, "-m", "worker")
PATIENCE_SECONDS = 60.0


@pytest.fixture(scope="module")
def silent() -> Iterator[dict[str, str]]:
    """Settings of servers that take a connection and never answer: no command ends by itself in seconds."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        yield {
            **os.environ,
            "ORDER_WORKER_KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{port}",
            "ORDER_WORKER_DATABASE_URL": f"postgresql://127.0.0.1:{port}/shop",
            "ORDER_WORKER_HTTP_PORT": "0",
        }


def started(
    command: tuple[str, ...], env: dict[str, str], *, stdin: int = subprocess.DEVNULL
) -> "subprocess.Popen[bytes]":
    """As the image starts it: signals wait until there is somebody to handle them."""
    return subprocess.Popen(
        [*PROGRAM, *command],
        cwd=ROOT,
        env=env,
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS),
    )


def ends_as_documented(process: "subprocess.Popen[bytes]", command: tuple[str, ...], number: int) -> None:
    out, err = process.communicate(timeout=PATIENCE_SECONDS)
    expected = 0 if command[0] == "run" else 128 + number
    assert process.returncode == expected, (out, err)
    assert b"Traceback" not in err, err.decode()
    assert b"never awaited" not in err, err.decode()


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: signal.Signals(number).name)
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_signal_ends_a_command_at_any_moment_as_documented(
    command: tuple[str, ...], number: int, silent: dict[str, str]
):
    for delay_ms in DELAYS_MS:
        process = started(command, silent)
        time.sleep(delay_ms / 1_000)  # the moment is what is tried here
        process.send_signal(number)
        ends_as_documented(process, command, number)


@pytest.mark.parametrize("number", [*SIGNALS, signal.SIGHUP], ids=lambda number: signal.Signals(number).name)
def test_a_signal_ends_a_command_that_waits_for_a_server(number: int, silent: dict[str, str]):
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(PATIENCE_SECONDS)
        at = f"127.0.0.1:{server.getsockname()[1]}"
        process = started(("lag",), silent | {"ORDER_WORKER_KAFKA_BOOTSTRAP_SERVERS": at})
        with server.accept()[0]:
            process.send_signal(number)
            ends_as_documented(process, ("lag",), number)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says what a process waits for")
@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: signal.Signals(number).name)
def test_a_signal_ends_a_command_that_waits_for_its_standard_input(number: int, silent: dict[str, str]):
    process = started(("check", "--contract-only", "-"), silent, stdin=subprocess.PIPE)
    assert process.stdin is not None
    waits_for = Path(f"/proc/{process.pid}/wchan")
    eventually(lambda: "pipe" in waits_for.read_text(), PATIENCE_SECONDS)
    process.send_signal(number)
    assert process.wait(PATIENCE_SECONDS) == 128 + number
    process.stdin.close()
    process.stdin = None
    assert b"Traceback" not in process.communicate()[1]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says what a process waits for")
def test_a_signal_ends_a_command_that_waits_for_somebody_to_write_into_a_pipe(
    silent: dict[str, str], tmp_path: Path
):
    pipe = tmp_path / "orders"
    os.mkfifo(pipe)
    process = started(("check", "--contract-only", str(pipe)), silent)
    waits_for = Path(f"/proc/{process.pid}/wchan")
    eventually(lambda: "partner" in waits_for.read_text(), PATIENCE_SECONDS, waits_for.read_text)
    process.send_signal(signal.SIGTERM)
    ends_as_documented(process, ("check",), signal.SIGTERM)


def test_a_signal_that_nohup_has_set_to_be_ignored_stays_ignored(silent: dict[str, str]):
    process = subprocess.Popen(
        [*PROGRAM, "check", "--contract-only", "-"],
        cwd=ROOT,
        env=silent,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: [signal.signal(number, signal.SIG_IGN) for number in IGNORED],
    )
    for number in IGNORED * 5:
        process.send_signal(number)
        time.sleep(0.05)
    out, _ = process.communicate(b"", timeout=PATIENCE_SECONDS)
    assert (process.returncode, out) == (1, b"")


NO_NAMESPACE = "this machine lets nobody have a process 1 of their own (unshare --user --pid)"
FIRST = ("unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child")


@pytest.fixture
def process_one(silent: dict[str, str]) -> Iterator["subprocess.Popen[bytes]"]:
    """`run` as process 1 of a namespace of its own, by the entry point of the image."""
    able = shutil.which("unshare") and subprocess.run([*FIRST, "true"], capture_output=True).returncode == 0
    if not able:
        # A container may forbid it, in CI as well; on a virtual machine of a CI it would be missed.
        pytest.skip(NO_NAMESPACE)
    process = subprocess.Popen(
        [*FIRST, *entry_point(), "run"], cwd=ROOT, env=silent, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    yield process
    process.kill()
    process.communicate()


def entry_point() -> list[str]:
    """That of the Dockerfile, with this Python."""
    (line,) = [x for x in (ROOT / "Dockerfile").read_text().splitlines() if x.startswith("ENTRYPOINT")]
    words = line.removeprefix("ENTRYPOINT").strip(' []"').split('", "')
    return [sys.executable if word == "python" else word for word in words]


def child_of(process: "subprocess.Popen[bytes]") -> int:
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return int(eventually(children.read_text).split()[0])


@pytest.mark.skipif(sys.platform != "linux", reason="namespaces are Linux's")
@pytest.mark.parametrize("delay_ms", DELAYS_MS)
def test_process_1_of_a_container_handles_sigterm_from_its_first_moment(
    process_one: "subprocess.Popen[bytes]", delay_ms: int
):
    pid = child_of(process_one)
    eventually(lambda: b"env" in command_of(pid) or b"worker" in command_of(pid))
    blocked_or_handled(pid)
    time.sleep(delay_ms / 1_000)
    os.kill(pid, signal.SIGTERM)
    out, err = process_one.communicate(timeout=PATIENCE_SECONDS)
    assert (process_one.returncode, out, err) == (0, b"", b"")


def command_of(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def blocked_or_handled(pid: int) -> None:
    """The one moment that is lost is that of `env` itself, before it has blocked anything."""
    bit = 1 << (signal.SIGTERM - 1)

    def is_so() -> bool:
        status = Path(f"/proc/{pid}/status").read_text()
        masks = dict(line.split(":\t") for line in status.splitlines() if line.startswith("Sig"))
        return any(int(masks[name].strip(), 16) & bit for name in ("SigBlk", "SigCgt"))

    eventually(is_so)
