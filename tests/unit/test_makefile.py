"""What `make` installs, and when it begins again: by `make --dry-run`, with stamps of different ages."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
CLEAR = "-m venv --clear"
DEMO, DEV = "-r requirements/demo.txt", "-r requirements/dev.txt"
OLD, NOW, NEW = 1_000, 2_000, 3_000  # the files that are installed from are of NOW

pytestmark = pytest.mark.skipif(not shutil.which("make"), reason="no make here")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What the rules of the environment look at."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in ("requirements/demo.txt", "requirements/dev.txt", "pyproject.toml"):
        made(tmp_path / name, NOW)
    return tmp_path


def made(path: Path, at: float) -> None:
    path.parent.mkdir(exist_ok=True)
    path.touch()
    os.utime(path, (at, at))


def planned(checkout: Path, *arguments: str) -> str:
    """The commands that would run."""
    call, env = ["make", "--dry-run", *arguments], {"PATH": os.environ["PATH"]}
    return subprocess.run(call, cwd=checkout, check=True, capture_output=True, text=True, env=env).stdout


@pytest.mark.parametrize(
    ("stamps", "goals", "runs"),
    [
        ({}, ["demo"], {CLEAR, DEMO}),
        ({}, ["setup"], {CLEAR, DEV}),
        ({}, ["demo", "lint"], {CLEAR, DEV}),
        ({".demo": NEW}, ["demo"], set()),
        ({".demo": OLD}, ["demo"], {CLEAR, DEMO}),
        ({".demo": NEW}, ["setup"], {DEV}),
        ({".demo": OLD}, ["setup"], {CLEAR, DEV}),
        ({".ready": NEW}, ["demo"], set()),
        ({".ready": NEW}, ["setup"], set()),
        ({".ready": OLD}, ["demo"], {CLEAR, DEV}),
        ({".ready": OLD}, ["setup"], {CLEAR, DEV}),
    ],
)
def test_the_demo_installs_its_own_set_and_setup_completes_it(
    checkout: Path, stamps: dict[str, float], goals: list[str], runs: set[str]
):
    for name, at in stamps.items():
        made(checkout / ".venv" / name, at)
    commands = planned(checkout, *goals)
    assert {part for part in (CLEAR, DEMO, DEV) if part in commands} == runs


@pytest.mark.parametrize(
    ("goal", "tools"),
    [
        ("test", {"chromium", "pgbouncer", "prometheus", "npm ci"}),
        ("coverage", {"chromium", "pgbouncer", "prometheus", "npm ci"}),
        ("faults", {"pgbouncer"}),
    ],
)
def test_in_ci_what_a_run_takes_for_an_error_is_installed_before_it(
    checkout: Path, goal: str, tools: set[str]
):
    made(checkout / ".venv" / ".ready", NEW)
    commands = planned(checkout, goal, "CI=true").partition("python -m ")[0]
    assert {tool for tool in ("chromium", "pgbouncer", "prometheus", "npm ci") if tool in commands} == tools
    assert "apt-get" not in planned(checkout, goal)


@pytest.mark.parametrize(
    ("arguments", "runs"),
    [
        (["demo"], "order-worker demo "),
        (["demo", "KEEP=1"], "order-worker demo --keep"),
        (["release", "VERSION=0.2.0"], 'release "0.2.0" '),
        (["release", "VERSION=0.2.0", "EXECUTE=1"], 'release "0.2.0" --execute'),
        (["release", "VERSION=0.2.0", "EXECUTE=0"], 'release "0.2.0" '),
    ],
)
def test_what_a_variable_asks_for_is_passed_on(checkout: Path, arguments: list[str], runs: str):
    made(checkout / ".venv" / ".ready", NEW)
    assert planned(checkout, *arguments).splitlines()[-1].endswith(runs)
