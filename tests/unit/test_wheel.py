"""What others install: the wheel has the types of all three packages, and the contract's files."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from contracts.version import __version__

ROOT = Path(__file__).parent.parent.parent
PACKAGES = ("contracts", "db", "worker")
CONTRACT = (
    "contracts/schemas/asyncapi.json",
    "contracts/schemas/v1/order-placed.json",
    f"contracts/released/v1/{__version__}/order-placed.json",
    "contracts/examples/outcomes.jsonl",
)
CONSUMER = """
from contracts.events import OrderPlaced
from db.statuses import OrderStatus
from worker.errors import CommandError

order: int = OrderPlaced.model_validate_json(b"")
status: int = OrderStatus.PENDING.value
error: int = CommandError("").exit_code
"""


def test_the_wheel_says_that_its_packages_are_typed_and_has_the_contract(tmp_path: Path):
    built = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob(f"order_worker-{__version__}-*.whl")
    files = set(zipfile.ZipFile(wheel).namelist())
    assert {f"{package}/py.typed" for package in PACKAGES} | {*CONTRACT} <= files


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
