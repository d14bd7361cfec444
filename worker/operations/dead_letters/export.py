"""`dead-letters export`: dead letters as JSON lines, for other tools."""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from aiokafka import ConsumerRecord
from pydantic_core import to_json

from worker.core.triage import Source
from worker.errors import CommandError, UsageError
from worker.failures import reason_of
from worker.kafka.consuming.unreadable import UnreadableCount
from worker.kafka.offsets import topic_reader
from worker.operations.dead_letters.letter import Choice, Letter
from worker.operations.dead_letters.read import NOTHING, chosen, letter_spans, plain_record
from worker.settings import Settings


async def export(
    settings: Settings, choice: Choice, out: Path, *, force: bool
) -> tuple[int, list[UnreadableCount]]:
    """Write the chosen letters as JSON lines ("-": standard output), all or none.

    Returns how many there are, and what in their topic cannot be unpacked.
    """
    count = 0
    with _written(out, force) as file:
        async with topic_reader(settings, settings.dead_letter_topic) as consumer:
            spans = await letter_spans(consumer, settings, choice)
            async for found in chosen(consumer, spans, choice, "exporting"):
                for letter, record in found:
                    _write(file, to_json(_line(letter, record)) + b"\n", out)
                    count += 1
            unreadable = consumer.met.counts()
        if not count:
            raise CommandError(NOTHING)
    return count, unreadable


def _line(letter: Letter, record: ConsumerRecord) -> dict[str, Any]:
    source = letter.source
    return {
        "place": str(letter.place),
        "source": source._asdict() if isinstance(source, Source) else None,
        "error": {"code": letter.code, "path": letter.path, "message": letter.message},
        "failed_at": letter.failed_at,
        "cut_from_bytes": letter.cut_from_bytes,
        **plain_record(record),
    }


@contextmanager
def _written(out: Path, force: bool) -> Iterator[IO[bytes]]:
    """A file that appears under its name when the block has ended well, and not before."""
    if str(out) == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    if out.exists() and not force:
        raise UsageError(f"{out} exists: choose another name, or overwrite it with --force")
    try:
        with tempfile.NamedTemporaryFile(dir=out.parent, prefix=f".{out.name}.", delete=False) as file:
            try:
                yield file
                file.flush()
                os.fsync(file.fileno())
                os.chmod(file.name, 0o666 & ~_umask())
                os.replace(file.name, out)
            except BaseException:
                with suppress(OSError):
                    os.unlink(file.name)
                raise
    except OSError as error:
        raise CommandError(f"cannot write {out}: {reason_of(error)}") from error


def _write(file: IO[bytes], line: bytes, out: Path) -> None:
    try:
        file.write(line)
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            # Whoever read has gone; at its end Python would try once more to write what is left.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise CommandError(f"cannot write {out}: {reason_of(error)}") from error


def _umask() -> int:
    """What the user takes away from new files; a temporary file is for its owner alone."""
    umask = os.umask(0)
    os.umask(umask)
    return umask
