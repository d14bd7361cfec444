"""The steps of the Dockerfile in a clean folder, without an engine: what comes of them runs and stops."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.support.builders import order_value
from tests.support.deadline import eventually
from tests.support.dockerfile import copy_into, environment, instructions, the_one, words
from tests.support.order_worker import ROOT
from tests.support.promises import Scene
from tests.support.topic_names import TopicNames
from worker.sandbox.servers.ports import free_port

UV: Final = (sys.executable, "-m", "uv")


def installed(folder: Path) -> Path:
    """The programs of a fresh Python with what the image installs, and nothing else."""
    subprocess.run([*UV, "venv", "--quiet", "--python", sys.executable, folder], check=True)
    locked = ("--require-hashes", "-r", "requirements/worker.txt")
    assert any(
        rest.startswith("pip install") and rest.split()[-3:] == [*locked] for _, rest in instructions()
    )
    subprocess.run([*UV, "pip", "install", "--quiet", "--python", folder, *locked], cwd=ROOT, check=True)
    return folder / "bin"


def files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


@pytest.mark.skipif(sys.platform != "linux", reason="the image's env is that of GNU")
@pytest.mark.timeout(400)
def test_what_the_image_is_made_of_runs_is_healthy_and_stops(
    scene: Scene, topics: TopicNames, env: dict[str, str], tmp_path: Path
):
    app, programs = tmp_path / "app", installed(tmp_path / "python")
    copy_into(app)
    assert not (app / "worker" / "sandbox").exists()
    compiled = next(rest for _, rest in instructions() if "compileall" in rest)
    subprocess.run([programs / "python", *compiled.split()[1:]], cwd=app, check=True)
    whole = {
        "PATH": f"{programs}:{os.environ['PATH']}",
        **{name: value.replace("/app", str(app)) for name, value in environment().items()},
        **env,
        "ORDER_WORKER_HTTP_PORT": str(free_port()),
    }
    before, log = files(app), tmp_path / "log"
    with log.open("wb") as output:
        worker = subprocess.Popen(
            [*words("ENTRYPOINT"), *words("CMD")], cwd=app, env=whole, stdout=output, stderr=output
        )
    try:
        eventually(lambda: "health, metrics" in log.read_text() or worker.poll() is not None, 120)
        eventually(lambda: is_healthy(app, whole), 30, log.read_text)
        scene.shop.stock_up({1: 100})
        scene.place([order_value()])
        scene.wait_until_drained()
        worker.send_signal(signal.Signals[the_one("STOPSIGNAL")])
        assert worker.wait(30) == 0, log.read_text()
    finally:
        worker.kill()
        worker.wait()
    assert len(scene.confirmed()) == 1
    assert files(app) == before, "its file system is read-only"


def is_healthy(app: Path, env: dict[str, str]) -> bool:
    return subprocess.run(words("HEALTHCHECK"), cwd=app, env=env, stdout=subprocess.DEVNULL).returncode == 0
