"""What stands against a release, each with its next step; where nothing does, it is built and tagged."""

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from release.plan import Checkout, is_version, obstacles

ROOT = Path(__file__).parent.parent.parent.parent
CHANGELOG = """# Changelog

## Unreleased

## 0.2.0 - 2026-12-01

### Added
- A command.

## 0.1.0 - 2026-11-01

- All.
"""
READY = Checkout("0.2.0", CHANGELOG, [], ["v0.1.0", "other"])


def test_a_commit_that_is_ready_has_no_obstacle():
    assert obstacles("0.2.0", READY) == []
    assert obstacles("0.2.0", replace(READY, tags=[])) == []
    assert obstacles("0.2.0", replace(READY, changelog=CHANGELOG.replace("## Unreleased\n\n", ""))) == []


@pytest.mark.parametrize(
    ("checkout", "says"),
    [
        (replace(READY, version="0.1.0"), 'contracts/version.py says 0.1.0: write __version__ = "0.2.0"'),
        (replace(READY, tags=["v0.2.0"]), "the tag v0.2.0 exists: take a version above 0.2.0"),
        (replace(READY, tags=["v0.10.0", "v0.3.0"]), "0.10.0 is released already: take a version above it"),
        (replace(READY, changelog=""), 'no section of this version: write "## 0.2.0 - YYYY-MM-DD"'),
        (replace(READY, changelog="## 0.2.0\n- A\n"), '"## 0.2.0" has no date'),
        (replace(READY, changelog="## 0.2.0 - soon\n- A\n"), '"## 0.2.0 - soon" has no date'),
        (replace(READY, changelog="## 0.2.0 - 2026-12-01\n\n## 0.1.0 - x\n- A\n"), "has no entries"),
        (
            replace(READY, changelog=CHANGELOG.replace("## Unreleased\n", "## Unreleased\n- B\n")),
            'entries below "## Unreleased": move them below "## 0.2.0 - YYYY-MM-DD"',
        ),
        (replace(READY, changed=["a"]), "not committed: a: commit or remove"),
        (replace(READY, changed=list("abcde")), "not committed: a, b, c and 2 more: commit or remove"),
    ],
)
def test_each_obstacle_is_named_with_the_next_step(checkout: Checkout, says: str):
    (line,) = obstacles("0.2.0", checkout)
    assert says in line


def test_all_obstacles_are_named_at_once():
    assert len(obstacles("0.0.9", replace(READY, changed=["a"]))) == 4


@pytest.mark.parametrize(
    "text", ["", "0.2", "v0.2.0", "0.2.0rc1", "01.2.0", "0.2.0\n", "0.2.0.0", "٠.٢.٠", "0.2.x"]
)
def test_what_is_not_three_numbers_is_no_version(text: str):
    assert not is_version(text)


def test_a_version_is_rehearsed_then_built_and_tagged_and_not_released_twice(tmp_path: Path):
    for name in ("pyproject.toml", "README.md", "LICENSE", ".gitignore"):
        shutil.copy(ROOT / name, tmp_path)
    for package in ("contracts", "db", "worker"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text('__version__ = "0.2.0"\n')
    (tmp_path / "contracts" / "version.py").write_text('__version__ = "0.2.0"\n')
    (tmp_path / "CHANGELOG.md").write_text(CHANGELOG)
    contract = tmp_path / "tests" / "unit" / "contracts" / "test_contract.py"
    contract.parent.mkdir(parents=True)
    contract.write_text("def test_it_is_as_released():\n    assert False\n")

    def git(*arguments: str) -> str:
        who = ("-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")
        return subprocess.run(
            ["git", *who, *arguments], cwd=tmp_path, check=True, capture_output=True, text=True
        ).stdout

    def release(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "release", *arguments, "--root", str(tmp_path)]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    assert "git status failed: fatal: not a git repository" in release("0.2.0").stderr
    git("init", "--quiet")
    git("config", "user.name", "A")
    git("config", "user.email", "a@example.org")
    git("add", ".")
    git("commit", "--quiet", "--message", "Say 0.2.0")
    refused = release("0.2.0")
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1), refused
    assert refused.stderr.startswith("error: the contract is not as released (1 failed")

    contract.write_text("def test_it_is_as_released():\n    pass\n")
    git("commit", "--quiet", "--all", "--message", "Mend the contract")
    rehearsed = release("0.2.0")
    assert (rehearsed.returncode, rehearsed.stderr) == (0, ""), rehearsed
    assert "Nothing is done yet: make release VERSION=0.2.0 EXECUTE=1" in rehearsed.stdout
    assert git("tag") == ""
    assert not (tmp_path / "dist").exists()

    done = release("0.2.0", "--execute")
    assert (done.returncode, done.stderr) == (0, ""), done
    assert [path.name for path in (tmp_path / "dist").iterdir()] == ["order_worker-0.2.0-py3-none-any.whl"]
    assert git("log", "-1", "--format=%s", "v0.2.0") == "Mend the contract\n"

    again = release("0.2.0", "--execute")
    assert again.returncode == 1
    assert "the tag v0.2.0 exists" in again.stderr
    assert release("0.2", "--execute").returncode == 2
