"""Real worker processes, started as users start them, and killed, frozen or stopped by signals."""

import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from tests.support.deadline import eventually
from tests.support.forked_process import ForkedProcess
from tests.support.worker_template import WorkerTemplate
from worker.sandbox.servers.processes import start_process

ROOT = Path(__file__).parent.parent.parent
RUN = (sys.executable, "-m", "worker", "run")


class WorkerProcess:
    """One worker process and its log."""

    def __init__(
        self,
        environment: Mapping[str, str],
        log_path: Path,
        command: Sequence[str] = RUN,
        template: WorkerTemplate | None = None,
    ) -> None:
        """`template`: fork a Python module's process from there instead of executing it."""
        self.log_path = log_path
        whole = {**os.environ, **environment}
        # It ends with this process, even after a SIGKILL: nothing else would end it.
        self.process: subprocess.Popen[bytes] | ForkedProcess = (
            _forked(template, command, whole, log_path)
            if template and template.can_start(command, whole)
            else start_process(command, log_path=log_path, folder=ROOT, environment=whole)
        )

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    @property
    def url(self) -> str:
        match = re.search(r"health, metrics and docs on http://[^:]+:(\d+)", self.log)
        assert match, self.log
        return f"http://127.0.0.1:{match[1]}"

    def get(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(self.url + path, timeout=5) as answer:
                return answer.status, answer.read().decode(errors="replace")
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def metric(self, name: str) -> dict[str, float]:
        """The metric's values by that of its label, "" where it has none; empty while it has no value."""
        return {
            sample.labels.popitem()[1] if sample.labels else "": sample.value
            for family in text_string_to_metric_families(self.get("/metrics")[1])
            for sample in family.samples
            if sample.name == name
        }

    def wait_for_log(self, text: str, seconds: float = 30.0) -> None:
        eventually(lambda: text in self.log or self._ended(), seconds, lambda: self.log[-2000:])
        assert text in self.log, self.log[-3000:]

    def wait_until_ready(self) -> "WorkerProcess":
        # Others start at the same time on two cores: with ten of them, the imports alone took 20 s.
        self.wait_for_log("health, metrics and docs on", 60)
        eventually(
            lambda: self.get("/readyz")[0] == 200, 60, lambda: f"{self.get('/readyz')[1]}\n{self.log[-2000:]}"
        )
        return self

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def catches(self, number: int) -> bool:
        """Whether it has a handler for the signal yet; only Linux shows that it has none."""
        status = Path(f"/proc/{self.process.pid}/status")
        if not status.exists():
            return True
        match = re.search(r"^SigCgt:\s*([0-9a-f]+)$", status.read_text(), re.MULTILINE)
        assert match
        return bool(int(match[1], 16) >> (number - 1) & 1)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        self.process.wait(10)

    def wait(self, seconds: float = 30.0) -> int:
        return self.process.wait(seconds)

    def stop(self) -> int:
        """End it as an operator would; the exit code."""
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
        return self.wait()

    def _ended(self) -> bool:
        return self.process.poll() is not None

    def close(self) -> None:
        if self.process.poll() is None:
            self.signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait()


class Workers:
    """Starts workers for one test, and leaves none behind."""

    def __init__(
        self, environment: Mapping[str, str], folder: Path, template: WorkerTemplate | None = None
    ) -> None:
        self.environment = dict(environment)
        self._folder = folder
        self._template = template
        self._all: list[WorkerProcess] = []

    def start(self, *command: str, **settings: str) -> WorkerProcess:
        """One more worker, or what the command runs; `settings` without their prefix, in lower case."""
        environment = self.environment | {f"ORDER_WORKER_{k.upper()}": v for k, v in settings.items()}
        path = self._folder / f"worker-{len(self._all)}.log"
        process = WorkerProcess(environment, path, command or RUN, self._template)
        self._all.append(process)
        return process

    @property
    def logs(self) -> str:
        """All that they have written."""
        return "".join(process.log for process in self._all)

    def close(self) -> None:
        for process in self._all:
            process.close()


def _forked(
    template: WorkerTemplate, command: Sequence[str], environment: Mapping[str, str], log_path: Path
) -> ForkedProcess:
    with log_path.open("ab") as log, open(os.devnull) as nothing:
        streams = (nothing.fileno(), log.fileno(), log.fileno())
        return template.start(command[2:], environment, ROOT, streams)


@contextmanager
def workers_in(
    environment: Mapping[str, str], folder: Path, template: WorkerTemplate | None = None
) -> Iterator[Workers]:
    workers = Workers(environment, folder, template)
    try:
        yield workers
    finally:
        workers.close()
