"""Kafka's jars: exactly the pinned ones, from Maven into the cache."""

import hashlib
import json
import os
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

from worker.sandbox.servers.errors import LocalServiceError, missing_package
from worker.sandbox.servers.folders import cache_folder

REPOSITORY_VARIABLE = "ORDER_WORKER_MAVEN_REPOSITORY"
_HERE = Path(__file__).parent
_KAFKA = _HERE / "kafka.lock.json"
_EXTRA = _HERE / "kafka-extra.lock.json"
_LOGGING, _TOOLS = "org.slf4j:slf4j-simple", "org.apache.kafka:kafka-tools"
# 44 MB take 3 to 8 s with 8 at a time; 16 were no faster, and 32 more than the name server liked.
_PARALLEL = 8
_ATTEMPTS = 3
_PAUSE_SECONDS = 0.5


def kafka_jars(
    report: Callable[[str], None], *, tools: bool = False, cancelled: threading.Event | None = None
) -> list[Path]:
    """The broker's class path, and that of Kafka's own command line tools if wanted.

    Every file has the pinned sha256, checked on each call: what is missing or damaged is fetched (again). Any
    number of processes may do this at once.
    """
    pinned = _read(_KAFKA) | _only(_read(_EXTRA), {_LOGGING, _TOOLS} if tools else {_LOGGING})
    folder = cache_folder("jars")
    paths = {coordinate: folder / _file_name(coordinate) for coordinate in pinned}
    with ThreadPoolExecutor(_PARALLEL) as pool:
        intact = dict(zip(pinned, pool.map(_is_intact, paths.values(), pinned.values()), strict=True))
        absent = [coordinate for coordinate in pinned if not intact[coordinate]]
        if absent:
            _check_installed()
            report(_sentence(len(absent), len(pinned)))
        stop = cancelled or threading.Event()
        for _ in pool.map(lambda one: _fetch(one, pinned[one], paths[one], stop), absent):
            pass  # the first error ends it
    return list(paths.values())


def _sentence(absent: int, all_of_them: int) -> str:
    if absent == all_of_them:
        return "Fetching Kafka 4.3.1 (44 MB, once)"
    return f"Fetching {absent} of Kafka's {all_of_them} files"


def _read(path: Path) -> dict[str, str]:
    pinned: dict[str, str] = json.loads(path.read_text())
    return pinned


def _only(pinned: dict[str, str], names: set[str]) -> dict[str, str]:
    return {
        coordinate: digest for coordinate, digest in pinned.items() if coordinate.rpartition(":")[0] in names
    }


def _file_name(coordinate: str) -> str:
    _, artifact, version = coordinate.split(":")
    return f"{artifact}-{version}.jar"


def _is_intact(path: Path, digest: str) -> bool:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == digest
    except FileNotFoundError:
        return False


def _fetch(coordinate: str, digest: str, path: Path, cancelled: threading.Event) -> None:
    failure = LocalServiceError("Kafka was stopped while it was starting")
    for attempt in range(_ATTEMPTS):
        if cancelled.wait(attempt * _PAUSE_SECONDS):
            break
        try:
            return _fetch_once(coordinate, digest, path)
        except LocalServiceError as error:
            failure = error
    raise failure


def _fetch_once(coordinate: str, digest: str, path: Path) -> None:
    # In a folder nobody else writes to, then renamed: a file with its final name is always whole.
    with tempfile.TemporaryDirectory(dir=path.parent, prefix="fetching-") as folder:
        fetched = _download(coordinate, Path(folder))
        if not _is_intact(fetched, digest):
            raise LocalServiceError(
                f"{coordinate} from the Maven repository is not the pinned file; "
                f"set {REPOSITORY_VARIABLE} to a repository you trust"
            )
        fetched.replace(path)


def _download(coordinate: str, folder: Path) -> Path:
    from jgo.maven import MavenContext, PythonResolver
    from requests import RequestException

    mirror = os.environ.get(REPOSITORY_VARIABLE)
    context = MavenContext(
        resolver=PythonResolver(),
        repo_cache=folder,
        remote_repos={"mirror": mirror.rstrip("/")} if mirror else None,
    )
    group, artifact, version = coordinate.split(":")
    try:
        return Path(context.project(group, artifact).at_version(version).artifact().resolve())
    except (RequestException, RuntimeError, OSError) as error:
        raise LocalServiceError(
            f"cannot fetch {coordinate} ({type(error).__name__}): go online once, or set "
            f"{REPOSITORY_VARIABLE} to a mirror you can reach, or name running servers with "
            "ORDER_WORKER_KAFKA_BOOTSTRAP_SERVERS and ORDER_WORKER_DATABASE_URL"
        ) from error


def _check_installed() -> None:
    if find_spec("jgo") is None:
        raise missing_package(ImportError(name="jgo"))
