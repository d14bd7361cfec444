"""Where downloads are kept and where the servers' data live."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from worker.sandbox.servers.errors import LocalServiceError

CACHE_VARIABLE = "ORDER_WORKER_CACHE_DIR"
_PREFIX = "order-worker-local-"
_LOCK = "in-use"


def cache_folder(name: str) -> Path:
    """The folder `name` of the cache; it exists and can be written."""
    folder = _cache_root() / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LocalServiceError(
            f"cannot write to {folder} ({error.strerror}); set {CACHE_VARIABLE} to a folder you own"
        ) from error
    return folder


def _cache_root() -> Path:
    if chosen := os.environ.get(CACHE_VARIABLE):
        return Path(chosen).absolute()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "order-worker"


@contextmanager
def data_folder() -> Iterator[Path]:
    """A fresh folder, removed at the end; what a killed process left behind is removed by the next one."""
    _remove_abandoned()
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    # Another account may have to pass through (PostgreSQL as `nobody`); what is inside has modes of its own.
    folder.chmod(0o711)
    lock = os.open(folder / _LOCK, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _remove_abandoned() -> None:
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        if _is_abandoned(folder):
            shutil.rmtree(folder, ignore_errors=True)


def _is_abandoned(folder: Path) -> bool:
    # The kernel drops a lock when its owner dies; a pid means nothing where containers share /tmp.
    try:
        lock = os.open(folder / _LOCK, os.O_RDWR)
    except OSError:
        return False  # somebody else's, or made this very moment
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except OSError:
        return False
    finally:
        os.close(lock)
