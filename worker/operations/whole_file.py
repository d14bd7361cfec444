"""What a command writes into a file: all of it, or nothing."""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from worker.error_texts import reason_of
from worker.errors import CommandError, UsageError


@contextmanager
def written(out: Path, force: bool) -> Iterator[IO[bytes]]:
    """A file that appears under its name when the block has ended well, and not before."""
    if str(out) == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    try:
        _require_free(out, force)
        target = Path(os.path.realpath(out))  # a link stays one
        with tempfile.NamedTemporaryFile(dir=target.parent, prefix=f".{target.name}.", delete=False) as file:
            try:
                yield file
                file.flush()
                os.fsync(file.fileno())
                os.chmod(file.name, 0o666 & ~_umask())
                os.replace(file.name, target)
            except BaseException:
                with suppress(OSError):
                    os.unlink(file.name)
                raise
    except OSError as error:
        raise CommandError(f"cannot write {out}: {reason_of(error)}") from error


def _require_free(out: Path, force: bool) -> None:
    if not out.exists():
        return
    if not out.is_file():  # a folder, or a device, which would be replaced by a file
        raise UsageError(f"{out} is no file: name another one, or - for standard output")
    if not force:
        raise UsageError(f"{out} exists: choose another name, or overwrite it with --force")


def write_line(file: IO[bytes], line: bytes, out: Path) -> None:
    """Write it. Raises CommandError, also where nobody reads standard output any more."""
    try:
        file.write(line)
    except OSError as error:
        raise CommandError(f"cannot write {out}: {reason_of(error)}") from error


def _umask() -> int:
    """What the user takes away from new files; a temporary file is for its owner alone."""
    umask = os.umask(0)
    os.umask(umask)
    return umask
