"""The image, as its Dockerfile says: nothing of root's, nothing written, no tag that moves."""

import os
import re
import runpy
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Final

import pytest

from tests.support.dockerfile import copies, environment, instructions, is_ignored, the_one, words
from tests.support.order_worker import ROOT
from worker.settings import Settings

CHECK: Final = ROOT / "deploy" / "image" / "healthcheck.py"


def test_it_runs_as_a_user_that_is_known_by_number():
    """Of a name Kubernetes cannot say whether it is root's."""
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", the_one("USER"))


def test_its_base_has_a_tag_that_names_one_version():
    name, _, image = the_one("ARG").partition("=")
    assert the_one("FROM") == f"${{{name}}}"
    assert re.fullmatch(r"python:\d+\.\d+\.\d+-slim-\w+(@sha256:[0-9a-f]{64})?", image)


def test_its_python_is_one_that_the_project_supports():
    version = tuple(map(int, re.findall(r"\d+", the_one("ARG"))[:2]))
    assert version >= (3, 11)


def test_it_holds_the_three_packages_without_what_is_for_tests():
    sources = {source for source, _ in copies()}
    assert {"contracts", "db", "worker"} <= sources
    assert not any(is_ignored(source) for source in sources)
    assert is_ignored("worker/sandbox")
    assert is_ignored("tests")
    assert is_ignored("worker/core/__pycache__")


def test_it_writes_no_byte_code_into_itself_and_has_it_from_its_build():
    assert environment()["PYTHONDONTWRITEBYTECODE"] == "1"
    assert any(name == "RUN" and "compileall" in rest for name, rest in instructions())


def test_its_settings_are_settings():
    names = {
        name.removeprefix("ORDER_WORKER_").lower()
        for name in environment()
        if name.startswith("ORDER_WORKER_")
    }
    assert names == {"http_host"}
    assert names <= set(Settings.model_fields)


def test_its_health_is_that_of_livez_by_a_file_that_is_in_it():
    program, file = words("HEALTHCHECK")
    assert program == "python"
    assert (CHECK.relative_to(ROOT).as_posix(), file) in copies()


class Answering(BaseHTTPRequestHandler):
    status = 200
    asked: list[str] = []  # noqa: RUF012 (the handler is recreated for each request)

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_response(self.status)
        self.end_headers()

    def log_message(self, *_arguments: object) -> None:
        """Nothing."""


@pytest.fixture
def port() -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Answering) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def health(monkeypatch: pytest.MonkeyPatch, port: str, host: str = "0.0.0.0") -> int:
    monkeypatch.setenv("ORDER_WORKER_HTTP_PORT", port)
    monkeypatch.setenv("ORDER_WORKER_HTTP_HOST", host)
    code: int = runpy.run_path(str(CHECK))["main"]()
    return code


@pytest.mark.parametrize("host", ["0.0.0.0", "127.0.0.1", "", "localhost"])
def test_a_worker_that_answers_is_healthy(port: int, host: str, monkeypatch: pytest.MonkeyPatch):
    Answering.asked.clear()
    assert health(monkeypatch, str(port), host) == 0
    assert Answering.asked == ["/livez"]


@pytest.mark.parametrize("status", [500, 503])
def test_one_that_says_that_it_is_not_is_not(
    port: int, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(Answering, "status", status)
    assert health(monkeypatch, str(port)) == 1
    assert capsys.readouterr().out == f"/livez on 127.0.0.1, port {port}: {status}\n"


@pytest.mark.parametrize("wrong", ["1", "eighty"])
def test_one_that_does_not_answer_is_not_healthy_and_says_so_in_one_line(
    wrong: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    assert health(monkeypatch, wrong) == 1
    said = capsys.readouterr().out
    assert said.startswith(f"/livez on 127.0.0.1, port {wrong}: ")
    assert said.count("\n") == 1


def test_it_asks_the_worker_and_no_proxy(port: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert health(monkeypatch, str(port)) == 0


def test_an_unknown_port_is_not_asked(monkeypatch: pytest.MonkeyPatch):
    assert health(monkeypatch, "0") == 0


def test_the_health_check_reads_no_file_and_no_package_of_ours():
    code = CHECK.read_text()
    assert not re.search(r"^(from|import) (worker|db|contracts)", code, re.MULTILINE)
    assert os.access(CHECK, os.R_OK)
    assert Path(words("HEALTHCHECK")[1]).suffix == ".py"
