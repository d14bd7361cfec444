"""What is meant as a setting and is none, in the environment or `.env`: a slip would be a silent default."""

import io
import os
import re
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Final

from dotenv.parser import Binding, parse_stream

PREFIX: Final = "ORDER_WORKER_"
# Of the demo and the tests' servers.
_NO_SETTINGS: Final = ("NO_DOCKER", "CACHE_DIR", "MAVEN_REPOSITORY", "DEMO_SECONDS")
# What Kubernetes gives each container of a namespace that has a service called order-worker.
_OF_KUBERNETES: Final = re.compile(
    r"SERVICE_(HOST|PORT(_.*)?)|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?"
)
_OURS: Final = re.compile(rf"^[^\S\n]*(?:export[^\S\n]+)?['\"]?({PREFIX}\w*)", re.IGNORECASE | re.MULTILINE)


def wrong_names(env_file: Path, settings: Iterable[str]) -> list[str]:
    """What is wrong with each, in the file by its line, never with its value. `settings`: without prefix.

    What others keep in the file does not matter, nor does a folder of that name.
    """
    names, faults = [*os.environ], list[str]()
    if env_file.is_file():
        try:
            for binding in parse_stream(io.StringIO(env_file.read_text("utf-8"))):
                faults += (f"{env_file} {fault}" for fault in _faults(binding))
                names += filter(None, [binding.key])
        except UnicodeDecodeError:
            faults = [f"{env_file} is not UTF-8 text: save it as UTF-8"]
    return faults or unknown_names(names, settings)


def _faults(binding: Binding) -> Iterator[str]:
    text = binding.original.string
    for found in _OURS.finditer(text):
        name, line = found[1], binding.original.line + text.count("\n", 0, found.start())
        if binding.error or binding.value is None:
            yield f"line {line} cannot be read: write {name}=value, and close each quote"
        elif name != binding.key:
            yield f"line {line} is read as a part of {binding.key}: a quote before it is not closed"


def unknown_names(names: Iterable[str], settings: Iterable[str]) -> list[str]:
    """What is wrong with each name that begins as a setting does and is none."""
    known = {*(name.upper() for name in settings), *_NO_SETTINGS}
    given = {name.upper().removeprefix(PREFIX) for name in names if name.upper().startswith(PREFIX)}
    unknown = sorted(name for name in given - known if not _OF_KUBERNETES.fullmatch(name))
    return [
        f"{PREFIX}{name} is no setting"
        + "".join(f"; do you mean {PREFIX}{near}?" for near in get_close_matches(name, known, 1))
        for name in unknown
    ]
