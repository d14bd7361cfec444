"""A real Prometheus, and its promtool."""

import json
import shutil
import subprocess
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.order_worker import ROOT
from worker.sandbox.servers.ports import free_port
from worker.sandbox.servers.processes import Child

HOW_TO_INSTALL = "no Prometheus to test with: run `make prometheus` (as root)"
DEPLOYED = ROOT / "deploy" / "prometheus"
READY_SECONDS = 30.0


def is_installed() -> bool:
    return bool(shutil.which("prometheus") and shutil.which("promtool"))


def promtool(*arguments: str | Path, stdin: str = "") -> str:
    """What it says to standard output and error; it has to be content."""
    ran = subprocess.run(
        ["promtool", *map(str, arguments)], input=stdin, capture_output=True, text=True, timeout=120
    )
    said = ran.stdout + ran.stderr
    assert ran.returncode == 0, said
    return said


class Prometheus:
    """As deploy/prometheus configures it, but for the targets and a scrape every 200 ms."""

    def __init__(self, folder: Path, targets: Sequence[str]) -> None:
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self._folder = folder
        self._child = Child("Prometheus", folder / "prometheus.log")
        shutil.copytree(DEPLOYED, folder / "config")
        path = folder / "config" / "prometheus.yml"
        text = path.read_text()
        assert text.count("_interval: 15s") == 2
        path.write_text(text.replace("_interval: 15s", "_interval: 200ms"))
        listed = ", ".join(f'"{target}"' for target in targets)
        (folder / "config" / "workers.yml").write_text(f"- targets: [{listed}]\n")

    def start(self) -> None:
        program = shutil.which("prometheus")
        assert program
        self._child.spawn(
            [
                program,
                f"--config.file={self._folder / 'config' / 'prometheus.yml'}",
                f"--storage.tsdb.path={self._folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{self._port}",
            ],
            folder=self._folder,
        )
        self._child.wait_until_ready(self._is_ready, READY_SECONDS)

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The samples of an instant query; an error of the expression is one of the test."""
        samples: list[dict[str, Any]] = self._get("query", query=expression)["result"]
        return samples

    def rules(self) -> list[dict[str, Any]]:
        return [rule for group in self._get("rules")["groups"] for rule in group["rules"]]

    def kill(self) -> None:
        self._child.kill()

    def _get(self, what: str, **parameters: str) -> Any:
        url = f"{self.url}/api/v1/{what}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{parameters}: {error.read().decode()}") from None

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


@contextmanager
def prometheus_of(targets: Sequence[str]) -> Iterator[Prometheus]:
    """One that scrapes these, host:port each, and is gone after the block."""
    with tempfile.TemporaryDirectory(prefix="order-worker-prometheus-") as name:
        running = Prometheus(Path(name), targets)
        try:
            running.start()
            yield running
        finally:
            running.kill()
