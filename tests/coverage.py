"""The table of `make coverage`: what `coverage json` found, a row for each package.

Lines and branches count alike. A process that is killed writes nothing: what it alone ran counts as missed.
"""

import json
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

from worker.operations.screen import output, table

_HEAD = ("package", "lines", "missed", "branches", "missed", "covered")


class Reached:
    """How much of a package there is, and how much of it ran."""

    def __init__(self) -> None:
        self.lines = self.lines_missed = self.branches = self.branches_missed = 0

    def add(self, summary: Mapping[str, int]) -> None:
        self.lines += summary["num_statements"]
        self.lines_missed += summary["missing_lines"]
        self.branches += summary["num_branches"]
        self.branches_missed += summary["missing_branches"]

    @property
    def percent(self) -> float:
        whole = self.lines + self.branches
        return 100 * (whole - self.lines_missed - self.branches_missed) / whole if whole else 100.0


def package_of(path: str) -> str:
    """`worker/operations/lag/look.py` belongs to `worker.operations`, and `db/users.py` to `db`."""
    return ".".join(PurePosixPath(path).parts[:-1][:2])


def rows(document: Mapping[str, Any]) -> Iterator[tuple[object, ...]]:
    """The packages by name, and all of them together."""
    packages: defaultdict[str, Reached] = defaultdict(Reached)
    for path, file in document["files"].items():
        for name in (package_of(path), "~"):  # behind every letter
            packages[name].add(file["summary"])
    for name, of in sorted(packages.items()):
        shown = "all" if name == "~" else name
        yield shown, of.lines, of.lines_missed, of.branches, of.branches_missed, f"{of.percent:.1f} %"


if __name__ == "__main__":
    output().print(table(_HEAD, rows(json.load(sys.stdin)), numbers=_HEAD[1:]))
