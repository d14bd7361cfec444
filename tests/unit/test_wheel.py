"""What others install: the wheel has the types of all three packages."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PACKAGES = ("contracts", "db", "worker")
CONSUMER = """
from contracts.events import OrderPlaced
from db.statuses import OrderStatus
from worker.errors import CommandError

order: int = OrderPlaced.model_validate_json(b"")
status: int = OrderStatus.PENDING.value
error: int = CommandError("").exit_code
"""


def test_the_wheel_says_that_its_packages_are_typed(tmp_path: Path):
    built = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    assert {f"{package}/py.typed" for package in PACKAGES} <= set(zipfile.ZipFile(wheel).namelist())


@pytest.mark.timeout(600)
def test_a_consumer_is_checked_against_our_types(tmp_path: Path):
    (tmp_path / "consumer.py").write_text(CONSUMER)
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache"), "consumer.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    faults = [line for line in checked.stdout.splitlines() if "error:" in line]
    assert [line.split(":")[1] for line in faults] == ["6", "7"], checked.stdout
    assert "import-untyped" not in checked.stdout
