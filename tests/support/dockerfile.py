"""The instructions of the project's Dockerfile, and the files that they copy."""

import json
import re
import shutil
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Final

from tests.support.order_worker import ROOT

_TEXT: Final = (ROOT / "Dockerfile").read_text(encoding="utf-8")


def instructions() -> list[tuple[str, str]]:
    """(name, the rest of it), lines that continue joined, without comments."""
    text = re.sub(r"^#.*\n", "", _TEXT, flags=re.MULTILINE).replace("\\\n", " ")
    return [(name, rest.strip()) for name, _, rest in (line.partition(" ") for line in text.splitlines())]


def the_one(name: str) -> str:
    """What the only instruction of this name says."""
    (rest,) = (rest for one, rest in instructions() if one == name)
    return rest


def words(name: str) -> list[str]:
    """The words of an instruction in its form of a list."""
    rest = the_one(name)
    found: list[str] = json.loads(rest[rest.index("[") :])
    return found


def environment() -> dict[str, str]:
    """What ENV sets."""
    return dict(pair.split("=", 1) for pair in the_one("ENV").split())


def copies() -> Iterator[tuple[str, str]]:
    """(source, target) of each COPY."""
    for name, rest in instructions():
        if name == "COPY":
            source, target = rest.split()
            yield source, target


def copy_into(folder: Path) -> None:
    """What the image's build would copy, without what .dockerignore excludes."""
    for source, target in copies():
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, folder / target, ignore=_left_out)
        else:
            (folder / target).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / source, folder / target)


def _left_out(folder: str, names: list[str]) -> set[str]:
    relative = Path(folder).relative_to(ROOT).as_posix()
    return {name for name in names if is_ignored(f"{relative}/{name}")}


def is_ignored(path: str) -> bool:
    """Whether .dockerignore excludes this path; the last line that matches decides."""
    ignored = False
    for pattern in (ROOT / ".dockerignore").read_text().split():
        wanted, bare = pattern.startswith("!"), pattern.removeprefix("!").removeprefix("**/")
        parts = Path(path).parts if pattern.startswith("**/") else [path]
        if any(fnmatch(part, bare) or part.startswith(f"{bare}/") for part in parts):
            ignored = not wanted
    return ignored
