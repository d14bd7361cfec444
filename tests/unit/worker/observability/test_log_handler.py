"""A log that nobody reads, or that no disk takes."""

import io
import logging
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TextIO

import pytest

from worker.observability.log_handler import PATIENCE_SECONDS, LogHandler, handler_of

MISSING = "lines of the log that are missing here, because standard error did not take them: "


@pytest.fixture
def pipe() -> Iterator[tuple[int, TextIO]]:
    reader, writer = os.pipe()
    with open(writer, "w", encoding="utf-8") as stream:
        yield reader, stream
    os.close(reader)


def said(handler: logging.Handler, text: str) -> None:
    handler.emit(logging.LogRecord("worker", logging.INFO, "", 0, text, (), None))


def fill(stream: TextIO) -> int:
    """How many bytes that took."""
    os.set_blocking(stream.fileno(), False)
    count = 0
    with suppress(BlockingIOError):
        while True:
            count += os.write(stream.fileno(), b"x" * 4_096)
    os.set_blocking(stream.fileno(), True)
    return count


def test_lines_that_nobody_reads_are_dropped_and_counted(pipe: tuple[int, TextIO]):
    reader, stream = pipe
    handler = LogHandler(stream)
    full = fill(stream)
    began = time.monotonic()
    for text in ("one", "two", "three"):
        said(handler, text)
    assert time.monotonic() - began < 3 * PATIENCE_SECONDS, "only the first one waits"
    os.read(reader, full)
    said(handler, "four")
    said(handler, "five")
    assert os.read(reader, 65_536).decode().splitlines() == [f"{MISSING}3", "four", "five"]


def test_a_long_line_is_cut_where_nobody_reads_on(pipe: tuple[int, TextIO]):
    reader, stream = pipe
    handler = LogHandler(stream)
    full = fill(stream)
    os.read(reader, 8_192)
    said(handler, "é" * 100_000)
    lines = os.read(reader, full)
    said(handler, "the next")
    cut, *others = (lines.lstrip(b"x") + os.read(reader, full)).decode("utf-8", "ignore").splitlines()
    assert set(cut) == {"é"}
    assert others == [f"{MISSING}1", "the next"]


def test_a_full_disk_costs_lines_and_no_more(capfd: pytest.CaptureFixture[str]):
    if not Path("/dev/full").exists():
        pytest.skip("only Linux has a disk that is always full")
    with open("/dev/full", "w", encoding="utf-8", buffering=1) as stream:
        said(LogHandler(stream), "one")
    assert capfd.readouterr().err == ""


def test_without_standard_error_nothing_is_written(capfd: pytest.CaptureFixture[str]):
    said(LogHandler(None), "one")
    assert capfd.readouterr() == ("", "")


def test_a_stream_that_is_no_file_is_written_as_well() -> None:
    stream = io.StringIO()
    said(handler_of(stream), "one")
    assert stream.getvalue() == "one\n"
