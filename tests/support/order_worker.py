"""The installed command, as an operator calls it, in one test's environment."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field, replace
from functools import cache, reduce
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from typer.main import get_command

from tests.support.forked_process import ForkedProcess
from tests.support.worker_template import WorkerTemplate
from worker import cli

Process = subprocess.Popen[bytes] | ForkedProcess

ROOT = Path(__file__).parent.parent.parent
PATIENCE_SECONDS = 120.0


@dataclass(frozen=True)
class Result:
    """How a call ended."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """What was asked for with --json."""
        assert self.out, self
        return json.loads(self.out)

    @property
    def message(self) -> str:
        """What is wrong, as the document says it that --json puts on standard error."""
        said: str = json.loads(self.err)["error"]["message"]
        return said

    def assert_one_line(self, code: int, *texts: str) -> None:
        """It failed with one line that contains these; it may have printed other output before."""
        assert (self.code, self.err.count("\n")) == (code, 1), self
        assert self.err.startswith(("error: ", '{"version": 1, "error": ')), self.err
        for text in texts:
            assert text in self.err, self.err

    def assert_refused(self, code: int, *texts: str) -> None:
        """One line, and nothing else, says why."""
        self.assert_one_line(code, *texts)
        assert self.out == ""

    def done(self) -> "Result":
        """Itself, if it ended with 0 and reported nothing but the result."""
        assert (self.code, self.err) == (0, ""), self
        return self


@dataclass(frozen=True)
class OrderWorker:
    """A program and the environment it runs in. What was started is killed at the latest by `close`."""

    env: Mapping[str, str]
    program: tuple[str, ...] = (sys.executable, "-m", "worker")
    words: tuple[str, ...] = ()
    template: WorkerTemplate | None = None
    """what the process is forked from where it can be: that costs a tenth of an executed one"""
    started: list[Process] = field(default_factory=list)

    def of(self, *words: str) -> "OrderWorker":
        """The command that begins with these words."""
        return replace(self, words=words)

    def python(self, *arguments: str) -> "OrderWorker":
        """The same call with `python ARGUMENTS` in place of the program."""
        return replace(self, program=(sys.executable, *arguments))

    def __call__(self, *arguments: str, stdin: bytes = b"", **env: str) -> Result:
        return ended(self.start(*arguments, **env), stdin)  # type: ignore[arg-type]

    def start(self, *arguments: str, terminal: int = subprocess.PIPE, **env: str) -> Process:
        """The process, which continues beside the test; it may write to a terminal."""
        command, whole = [*self.program, *self.words, *arguments], {**os.environ, **self.env, **env}
        process: Process = (
            self.template.start_piped(command[2:], whole, ROOT, terminal)
            if self.template and self.template.can_start(command, whole)
            else subprocess.Popen(
                command, cwd=ROOT, env=whole, stdin=subprocess.PIPE, stdout=terminal, stderr=terminal
            )
        )
        self.started.append(process)
        return process

    def here(self, *arguments: str, **env: str) -> Result:
        """The same within this process, because starting a process takes most of a call's time.

        Not for what only a process has: signals, a standard input, and what libraries log to standard error.
        """
        out, err = io.BytesIO(), io.BytesIO()
        with (
            patch.dict(os.environ, {**self.env, **env}),
            patch.object(sys, "argv", ["order-worker", *self.words, *arguments]),
            redirect_stdout(io.TextIOWrapper(out, "utf-8", write_through=True)),
            redirect_stderr(io.TextIOWrapper(err, "utf-8", write_through=True)),
        ):
            code = _exit_code()
            return Result(code, out.getvalue().decode(), err.getvalue().decode())

    def close(self) -> None:
        for process in self.started:
            process.kill()
            process.communicate()


def ended(process: Process, stdin: bytes = b"") -> Result:
    """How the process ends, which it has to do by itself."""
    try:
        out, err = process.communicate(stdin, timeout=PATIENCE_SECONDS)
    finally:
        process.kill()
    assert process.returncode is not None
    return Result(process.returncode, (out or b"").decode(), (err or b"").decode())


@contextmanager
def order_worker_in(env: Mapping[str, str], template: WorkerTemplate | None = None) -> Iterator[OrderWorker]:
    command = OrderWorker(env, template=template)
    try:
        yield command
    finally:
        command.close()


@cache
def program() -> Any:
    """Our commands as typer builds them; that takes a fifteenth of a second."""
    return get_command(cli.app)


def command_named(name: str) -> Any:
    """The command that is called so."""
    return reduce(lambda group, word: group.commands[word], name.split(), program())


def command_names() -> Iterator[str]:
    """Each command as it is called, groups with their sub-commands."""
    for name, command in program().commands.items():
        yield from [f"{name} {sub}" for sub in getattr(command, "commands", {})] or [name]


def _exit_code() -> int:
    with pytest.raises(SystemExit) as exited:
        cli.main()
    code = exited.value.code
    assert code is None or isinstance(code, int), code
    return code or 0
