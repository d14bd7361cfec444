"""The checkout that is to be released: what git and its files say, its contract, its wheel and its tag."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Final

from release.plan import Checkout

CONTRACT_TESTS: Final = "tests/unit/contracts"
_VERSION: Final = re.compile(r'^__version__ = "([^"]*)"', re.MULTILINE)


class ReleaseError(Exception):
    """Why nothing is released, in one line."""


def read_checkout(root: Path) -> Checkout:
    """Read it, or raise a ReleaseError that names what cannot be read."""
    changed = _git(root, "status", "--porcelain", "--no-renames", "-z").split("\0")
    return Checkout(
        version=_version(_text(root / "contracts" / "version.py")),
        changelog=_text(root / "CHANGELOG.md"),
        changed=[entry[3:] for entry in changed if entry],
        tags=_git(root, "tag", "--list").split(),
    )


def commit(root: Path) -> str:
    """The commit that the tag will name: its short id and its title."""
    return _git(root, "log", "-1", "--format=%h %s").strip()


def check_contract(root: Path) -> None:
    """Raise a ReleaseError unless the contract's tests pass: its schemas, examples and released versions."""
    run = subprocess.run(
        [sys.executable, "-m", "pytest", CONTRACT_TESTS, "-q", "-p", "no:cacheprovider"],
        cwd=root,
        capture_output=True,
        text=True,
    )
    if run.returncode:
        last = (run.stdout.strip() or run.stderr.strip()).rpartition("\n")[2]
        raise ReleaseError(f"the contract is not as released ({last}): run python -m pytest {CONTRACT_TESTS}")


def build_wheel(root: Path, version: str) -> Path:
    """Build it into `dist/`, and return its path relative to the checkout."""
    _run(root, sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", "dist")
    (wheel,) = (root / "dist").glob(f"*-{version}-*.whl")
    return wheel.relative_to(root)


def add_tag(root: Path, version: str) -> None:
    _git(root, "tag", "--annotate", f"v{version}", "--message", f"order-worker {version}")


def _version(text: str) -> str:
    found = _VERSION.search(text)
    if not found:
        raise ReleaseError("contracts/version.py has no __version__")
    return found[1]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ReleaseError(f"cannot read {path.name}: {getattr(error, 'strerror', None) or error}") from None


def _git(root: Path, *arguments: str) -> str:
    return _run(root, "git", *arguments)


def _run(root: Path, *command: str) -> str:
    try:
        run = subprocess.run(command, cwd=root, capture_output=True, text=True)
    except FileNotFoundError:
        raise ReleaseError(f"{command[0]} is not installed here") from None
    if run.returncode:
        said = (run.stderr.strip() or run.stdout.strip()).partition("\n")[0]
        raise ReleaseError(f"{' '.join(map(str, command[:2]))} failed: {said}")
    return run.stdout
