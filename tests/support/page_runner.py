"""Runs the commands and snippets of a page, block by block, as a reader would."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.deadline import eventually
from tests.support.order_worker import ended
from tests.support.pages import ROOT, Block, blocks_of, read
from tests.support.promises import Scene
from tests.support.worker_process import Workers
from tests.support.worker_template import WorkerTemplate

PROGRAMS = Path(sys.executable).parent
# What a test does not do: it has servers and an installed command, and its own environment names them.
_LEFT_OUT = ("git clone", "pip install", "make ", "docker ", "export ORDER_WORKER_")
_RUNS_ON = "order-worker run"
_OF_A_SHELL = set("|<>&;$`\\\n")
# As `python -m asyncio` runs it, or as a script.
_PYTHON = """
import ast, asyncio, sys
code = compile(sys.argv[1], "page", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
if (running := eval(code, {})) is not None:
    asyncio.run(running)
"""
_KAFKA, _DATABASE = "127.0.0.1:9092", "postgresql://shop:shop@127.0.0.1:5432/shop"


@dataclass
class PageRunner:
    """Runs the blocks of a page in one folder, against one test's servers, topics and database.

    Simple calls of order-worker are forked from the template; bash runs everything else. A worker that the
    page starts continues until the test ends. Each block then finds decided what was placed before it. What a
    subscriber of the page prints is in `subscribed`.
    """

    scene: Scene
    env: Mapping[str, str]
    folder: Path
    workers: Workers
    template: WorkerTemplate
    said: str = ""
    subscribed: str = ""
    runs: bool = field(default=False, init=False)

    def run(self, page: str) -> None:
        (self.folder / "examples").symlink_to(ROOT / "examples")
        for block in blocks_of(read(page)):
            if block.language == "sh":
                self._shell(page, block)
            elif block.language == "python":
                self._python(page, block)

    def _shell(self, page: str, block: Block) -> None:
        script: list[str] = []
        for line in block.text.splitlines():
            if line.startswith(_RUNS_ON):
                self._call(page, block, script)
                arguments = line.partition("#")[0].split()[1:]
                self.workers.start(str(PROGRAMS / "order-worker"), *arguments).wait_until_ready()
                script, self.runs = [], True
            elif not line.startswith(_LEFT_OUT):
                script.append(line)
        self._call(page, block, script)

    def _call(self, page: str, block: Block, script: list[str]) -> None:
        if not any(script):
            return
        if self.runs:
            self.scene.wait_until_drained()
        for one in script if all(map(_is_simple, script)) else ["\n".join(script)]:
            code, out, err = self._forked(one) if _is_simple(one) else self._of_bash(one)
            self.said += out
            assert code == 0, f"{page}:{block.line}: {out[-2000:]}{err[-2000:]}"

    def _forked(self, line: str) -> tuple[int, str, str]:
        """The call without the start of another Python, which takes most of its time."""
        words = ["worker", *shlex.split(line, comments=True)[1:]]
        done = ended(self.template.start_piped(words, self._environment(), self.folder))
        return done.code, done.out, done.err

    def _of_bash(self, script: str) -> tuple[int, str, str]:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=self.folder,
            env=self._environment(),
            capture_output=True,
            text=True,
            timeout=120,
        )
        return done.returncode, done.stdout, done.stderr

    def _python(self, page: str, block: Block) -> None:
        log = self.folder / f"python-{block.line}.log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, "-c", _PYTHON, self._here(block.text)],
                cwd=self.folder,
                env=self._environment(),
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        try:
            if "async for record in" in block.text:  # it continues for ever
                eventually(lambda: log.read_text() or process.poll() is not None, 60)
                assert process.poll() is None, f"{page}:{block.line}: {log.read_text()}"
                self.subscribed += log.read_text()
            else:
                assert process.wait(60) == 0, f"{page}:{block.line}: {log.read_text()}"
        finally:
            process.kill()
            process.wait()

    def _environment(self) -> dict[str, str]:
        return {**os.environ, **self.env, "PATH": f"{PROGRAMS}{os.pathsep}{os.environ['PATH']}"}

    def _here(self, code: str) -> str:
        """The code, with this test's servers and topics in the place of the page's."""
        code = code.replace(_KAFKA, self.scene.kafka)
        code = code.replace(_DATABASE, self.env["ORDER_WORKER_DATABASE_URL"])
        topics = {name.replace("_", "-"): value for name, value in vars(self.scene.topics).items()}
        return re.sub(r'"(order-\w+)"', lambda match: f'"{topics.get(match[1], match[1])}"', code)


def _is_simple(line: str) -> bool:
    """A call of order-worker in which nothing is left to a shell but quotes and a comment."""
    return line.startswith("order-worker ") and not _OF_A_SHELL & set(line)
