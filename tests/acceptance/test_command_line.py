"""The edges of the command line: failures, closed outputs, narrow terminals, versions, completion."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from contracts.version import __version__
from tests.support.json_schema import faults
from tests.support.order_worker import ROOT, OrderWorker, Result, command_names, ended
from tests.support.terminal import shown_at
from worker.sandbox.servers.ports import free_port

ORDER_ID = "0b6f5c1e-5d0e-4c1e-9d0c-6a4a0c1d2e3f"
EXAMPLES = "contracts/examples/orders.jsonl"
OF_KAFKA = (
    "run",
    "topics create",
    f"place {EXAMPLES}",
    "lag",
    f"explain {ORDER_ID}",
    "replay --to-earliest",
    "replay --from-group old",
    "republish --all",
    "republish --all --execute",
    "dead-letters list",
    "dead-letters show 0:0",
    "dead-letters export --out -",
    "dead-letters redrive",
    "dead-letters redrive --execute",
    "reconcile",
    "ledger restore",
)
OF_POSTGRESQL = ("run", "db upgrade", "catalog import examples/catalog", f"check {EXAMPLES}")
PROGRAM = (sys.executable, "-m", "worker")


@pytest.fixture
def nobody() -> OrderWorker:
    """The command, with servers that refuse to be connected to."""
    port = free_port()
    return OrderWorker(
        {
            "ORDER_WORKER_KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{port}",
            "ORDER_WORKER_DATABASE_URL": f"postgresql://shop:hunter2@127.0.0.1:{port}/shop",
        }
    )


@pytest.fixture
def black_hole() -> Iterator[str]:
    """An address that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        yield f"127.0.0.1:{taken.getsockname()[1]}"


def error_of(err: str) -> dict[str, str | None]:
    """What a script reads on standard error, which is one line."""
    assert err.count("\n") == 1, err
    document = json.loads(err)
    assert faults(document, "error") == []
    error: dict[str, str | None] = document["error"]
    return error


def within_ten_seconds(order_worker: OrderWorker, calls: Sequence[str], **env: str) -> dict[str, Result]:
    """How these calls end, all of which are made at once: each of them waits for most of the time."""
    began = time.monotonic()
    processes = {call: order_worker.start(*call.split(), **env) for call in calls}  # type: ignore[arg-type]
    results = {call: ended(process) for call, process in processes.items()}
    assert time.monotonic() - began < 10
    return results


class TestFailures:
    @pytest.mark.parametrize("call", OF_KAFKA)
    def test_kafka_that_is_away_is_one_line_with_address_and_setting(
        self, order_worker: OrderWorker, call: str
    ):
        address = f"127.0.0.1:{free_port()}"
        failed = order_worker.here(*call.split(), ORDER_WORKER_KAFKA_BOOTSTRAP_SERVERS=address)
        failed.assert_refused(1, f"cannot reach Kafka at {address}", "ORDER_WORKER_KAFKA_BOOTSTRAP_SERVERS")

    @pytest.mark.parametrize("call", OF_POSTGRESQL)
    def test_postgresql_that_is_away_is_one_line_with_address_and_setting(
        self, nobody: OrderWorker, call: str
    ):
        failed = nobody.here(*call.split())
        failed.assert_refused(1, "cannot reach PostgreSQL at 127.0.0.1:", "ORDER_WORKER_DATABASE_URL")
        assert "hunter2" not in failed.err

    def test_kafka_that_never_answers_is_said_within_ten_seconds(
        self, order_worker: OrderWorker, black_hole: str, subtests: pytest.Subtests
    ):
        calls = ("run", "lag", f"explain {ORDER_ID}", "topics create", "reconcile")
        at_once = within_ten_seconds(order_worker, calls, ORDER_WORKER_KAFKA_BOOTSTRAP_SERVERS=black_hole)
        for call, failed in at_once.items():
            with subtests.test(call=call):
                failed.assert_refused(1, f"cannot reach Kafka at {black_hole} (no answer in time)")

    @pytest.mark.usefixtures("topics")
    def test_postgresql_that_never_answers_is_said_within_ten_seconds(
        self, order_worker: OrderWorker, black_hole: str, subtests: pytest.Subtests
    ):
        calls = ("run", "db upgrade", f"explain {ORDER_ID}", "reconcile", "ledger restore")
        url = f"postgresql://shop:hunter2@{black_hole}/shop"
        for call, failed in within_ten_seconds(order_worker, calls, ORDER_WORKER_DATABASE_URL=url).items():
            with subtests.test(call=call):
                failed.assert_refused(1, f"cannot reach PostgreSQL at {black_hole}/shop (no answer in time)")

    @pytest.mark.parametrize(
        ("call", "env", "code", "name", "next_step"),
        [
            (
                "lag --json",
                {},
                1,
                "kafka_unreachable",
                "start it or set ORDER_WORKER_KAFKA_BOOTSTRAP_SERVERS",
            ),
            (
                f"check --json {EXAMPLES}",
                {},
                1,
                "database_unreachable",
                "start it or set ORDER_WORKER_DATABASE_URL",
            ),
            ("lag --json", {"ORDER_WORKER_HTTP_PORT": "x"}, 1, "settings", None),
            ("lag --json", {"ORDER_WORKER_KAFKA_SERVERS": "x"}, 1, "settings", None),
            ("lag --json --intervall 3", {}, 2, "usage", "see `order-worker lag --help`"),
            ("lagg --json", {}, 2, "usage", "see `order-worker --help`"),
            ("explain --json nonsense", {}, 2, "usage", None),
            ("check --json no-such-file", {}, 2, "usage", None),
        ],
    )
    def test_with_json_a_failure_is_a_document_on_standard_error(
        self, nobody: OrderWorker, call: str, env: dict[str, str], code: int, name: str, next_step: str | None
    ):
        failed = nobody.here(*call.split(), **env)
        error = error_of(failed.err)
        assert (failed.code, failed.out) == (code, "")
        assert (error["code"], error["next"]) == (name, next_step), error

    def test_earlier_standard_output_is_kept_when_a_command_fails(self, nobody: OrderWorker):
        failed = nobody.here("reconcile", "--json")
        assert error_of(failed.err)["code"] == "database_unreachable"
        assert faults(failed.document, "reconcile") == []
        assert failed.document["error"].startswith("cannot reach PostgreSQL")

    def test_wrong_usage_is_one_line_that_names_the_help(self, nobody: OrderWorker):
        nobody.here("run", "--workers", "0").assert_refused(2, "--workers", "see `order-worker run --help`")

    def test_an_unforeseen_error_keeps_its_traceback_and_is_a_document_too(
        self, nobody: OrderWorker, monkeypatch: pytest.MonkeyPatch
    ):
        from worker.operations.lag import look

        monkeypatch.setattr(look, "watch_lag", None)
        failed = nobody.here("lag")
        assert (failed.code, "Traceback" in failed.err, "TypeError" in failed.err) == (1, True, True)
        error = error_of(nobody.here("lag", "--json").err)
        assert (error["code"], "Traceback" in str(error["traceback"])) == ("unexpected", True)

    @pytest.mark.parametrize("host", ["a..b", "-", "x" * 70, "127.0.0.1:99999"])
    @pytest.mark.parametrize("call", ["run", "lag", "topics create"])
    def test_a_wrong_address_is_one_line(self, nobody: OrderWorker, call: str, host: str):
        address = host if ":" in host else f"{host}:9092"
        url = f"postgresql://shop@{address}/shop"
        failed = nobody.here(
            *call.split(), ORDER_WORKER_KAFKA_BOOTSTRAP_SERVERS=address, ORDER_WORKER_DATABASE_URL=url
        )
        failed.assert_refused(1)


class TestOutput:
    CALLS = ("--help", "explain --help", "--version", f"check --contract-only {EXAMPLES}")
    JSON = f"check --contract-only --json {EXAMPLES}"

    @pytest.mark.parametrize("call", [*CALLS, JSON])
    def test_a_reader_that_has_gone_ends_it_quietly_with_141(self, call: str):
        reader, writer = os.pipe()
        os.close(reader)
        code, err = written_to(writer, call)
        os.close(writer)
        assert (code, err) == (141, "")

    def test_a_reader_that_continues_the_way_ends_it_quietly_with_141(self, tmp_path: Path):
        path = tmp_path / "orders.jsonl"
        path.write_text("{}\n" * 100_000)
        command = [*PROGRAM, "check", "--contract-only", str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT) as process:
            assert process.stdout is not None
            assert process.stdout.readline()
            process.stdout.close()
            assert process.stderr is not None
            assert (process.stderr.read(), process.wait(60)) == (b"", 141)

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
    @pytest.mark.parametrize("call", CALLS)
    def test_a_full_disk_is_one_line(self, call: str):
        with open("/dev/full", "wb") as full:
            code, err = written_to(full.fileno(), call)
        assert (code, err) == (1, "error: cannot write to standard output (no space left on device)\n")

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
    def test_a_full_disk_is_a_document_where_one_was_asked_for(self):
        with open("/dev/full", "wb") as full:
            code, err = written_to(full.fileno(), self.JSON)
        assert (code, error_of(err)["code"]) == (1, "output")

    @pytest.mark.parametrize("call", CALLS)
    def test_a_closed_standard_output_is_one_line(self, call: str):
        closed = subprocess.run(
            ["sh", "-c", 'exec "$@" >&-', "sh", *PROGRAM, *call.split()],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert closed.returncode == 1
        assert closed.stderr == "error: cannot write to standard output (bad file descriptor)\n"

    def test_a_standard_error_that_cannot_be_written_leaves_the_exit_code(self, nobody: OrderWorker):
        env = {**os.environ, **nobody.env}
        for closing in ("2>&-", "2>/dev/full"):
            command = ["sh", "-c", f'exec "$@" {closing}', "sh", *PROGRAM, "lag"]
            assert subprocess.run(command, cwd=ROOT, env=env, capture_output=True).returncode == 1

    def test_what_the_encoding_lacks_is_shown_as_a_question_mark(self, nobody: OrderWorker):
        shown = nobody("--help", PYTHONIOENCODING="ascii").done()
        assert "?" in shown.out

    def test_a_terminal_of_no_columns_is_one_of_unknown_width(self, nobody: OrderWorker):
        assert "Usage: order-worker lag" in nobody("lag", "--help", COLUMNS="0").done().out


def written_to(descriptor: int, call: str) -> tuple[int, str]:
    ended = subprocess.run(
        [*PROGRAM, *call.split()], cwd=ROOT, stdout=descriptor, stderr=subprocess.PIPE, text=True, timeout=60
    )
    return ended.returncode, ended.stderr


class TestNarrowTerminal:
    @pytest.mark.parametrize("command", ["", *command_names()])
    def test_help_is_whole_at_60_columns(self, lone_order_worker: OrderWorker, command: str):
        code, text = shown_at(lone_order_worker, 60, [*command.split(), "--help"])
        assert code == 0
        assert [line for line in text.splitlines() if len(line) > 60] == []
        assert "…" not in text.replace("ORDER_WORKER_…", "").replace("…republish…", "").replace(", …", "")


class TestVersion:
    def test_it_is_one_line_with_python_and_the_clients(self):
        said = OrderWorker({})("--version").done().out
        assert said.count("\n") == 1
        for name in (f"order-worker {__version__}", "CPython 3.", "aiokafka 0", "asyncpg"):
            assert name in said


class TestCompletion:
    @pytest.mark.parametrize(
        ("words", "completed"),
        [("dead", "dead-letters"), ("dead-letters re", "redrive"), ("lag --j", "--json")],
    )
    def test_the_shell_completes_commands_and_options(
        self, lone_order_worker: OrderWorker, words: str, completed: str
    ):
        typed = f"order-worker {words}"
        env = {
            "_ORDER_WORKER_COMPLETE": "complete_bash",
            "COMP_WORDS": typed,
            "COMP_CWORD": str(len(words.split())),
        }
        said = lone_order_worker(**env)  # type: ignore[arg-type]
        assert completed in said.out.split(), said

    @pytest.mark.skipif(not shutil.which("bash"), reason="no bash here")
    def test_it_is_shown_and_installed_for_the_shell_that_asks(self, tmp_path: Path):
        for option, proof in (("--show-completion", "complete"), ("--install-completion", "installed")):
            said = subprocess.run(
                ["bash", "-c", f'"{sys.executable}" -m worker {option}; exit $?'],
                cwd=ROOT,
                env={**os.environ, "HOME": str(tmp_path)},
                capture_output=True,
                text=True,
            )
            assert (said.returncode, proof in said.stdout) == (0, True), said
        assert list(tmp_path.rglob("order-worker*"))
