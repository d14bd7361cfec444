"""The pages as they are written, and what is wrong with one: each fault with its page and line."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from docs.links import PICTURES, absolute, anchors_of, is_elsewhere, links_of
from tests.support.order_worker import program
from worker.setting_names import unknown_names
from worker.settings import Settings

ROOT: Final = Path(__file__).parent.parent.parent
SHELL: Final = ("sh", "bash", "console", "")

_BLOCK: Final = re.compile(r"^( *)(```+)([a-z]*)[^\n]*\n(.*?)^\1\2$", re.DOTALL | re.MULTILINE)
_SPAN: Final = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
_SETTING: Final = re.compile(r"\bORDER_WORKER_[A-Z0-9_]*[A-Z0-9]")
_CHAINED: Final = re.compile(r"\s*(?:&&|\|\|?|;|&)\s*")
_TARGETS: Final = re.compile(r"^([a-z-]+):", re.MULTILINE)
_OF_EVERY_COMMAND: Final = {"--help", "-h", "--version", "--install-completion", "--show-completion"}


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    language: str
    text: str
    line: int  # of its first line, from 1


def pages() -> list[str]:
    """Every page of the project, by its path from the root."""
    folders = ("docs", "contracts", "bench", "deploy", "tests/faults")
    found = [*ROOT.glob("*.md"), *(path for folder in folders for path in (ROOT / folder).rglob("*.md"))]
    return sorted(path.relative_to(ROOT).as_posix() for path in found if "results" not in path.parts)


def read(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks_of(text: str) -> Iterator[Block]:
    for match in _BLOCK.finditer(text):
        yield Block(match[3], match[4], text.count("\n", 0, match.start(4)) + 1)


def broken_links(page: str, text: str) -> list[str]:
    """Links to a file that is not there, or to a heading that its page does not have."""
    faults = []
    for link in links_of(text):
        if is_elsewhere(link.target):
            continue
        path, anchor = absolute(page, link.target)
        if not (ROOT / path).exists():
            faults.append(f"{page}:{link.line}: {link.target} is not there")
        elif (
            anchor and path.endswith(".md") and anchor not in anchors_of(text if path == page else read(path))
        ):
            faults.append(f"{page}:{link.line}: {path} has no heading #{anchor}")
        elif link.target.endswith(PICTURES) and not (ROOT / path).is_file():
            faults.append(f"{page}:{link.line}: {link.target} is no picture")
    return faults


def unknown_settings(page: str, text: str) -> list[str]:
    return [
        f"{page}:{text.count(chr(10), 0, match.start()) + 1}: {why}"
        for match in _SETTING.finditer(text)
        for why in unknown_names([match[0]], Settings.model_fields)
    ]


def unknown_commands(page: str, text: str) -> list[str]:
    """Calls of order-worker and make, in shell blocks and code spans, that would fail as wrong usage."""
    faults = []
    for line, call in _calls(text):
        if why := _why_not(call):
            faults.append(f"{page}:{line}: {why}")
    return faults


def _calls(text: str) -> Iterator[tuple[int, str]]:
    for block in blocks_of(text):
        if block.language in SHELL:
            for number, line in enumerate(block.text.splitlines()):
                for call in _CHAINED.split(line.partition(" #")[0]):
                    yield block.line + number, call.removeprefix("$ ").strip()
    prose = _BLOCK.sub(lambda match: "\n" * match[0].count("\n"), text)
    for match in _SPAN.finditer(prose):
        yield prose.count("\n", 0, match.start()) + 1, match[1]


def _why_not(call: str) -> str | None:
    try:
        words = shlex.split(call)
    except ValueError:
        return None
    if words[:1] == ["make"]:
        targets = {word for word in words[1:] if re.fullmatch(r"[a-z-]+", word)}
        unknown = targets - set(_TARGETS.findall(read("Makefile")))
        return f"`{call}`: the Makefile has no {', '.join(sorted(unknown))}" if unknown else None
    if words and words[0].rpartition("/")[2] == "order-worker":
        return _why_no_command(call, words[1:], must_be=True)
    return _why_no_command(call, words, must_be=False)


def _why_no_command(call: str, words: list[str], *, must_be: bool) -> str | None:
    """`must_be`: it is meant as a call. Else only one that names a command and an option is."""
    command: Any = program()
    at = 0
    while commands := getattr(command, "commands", None):
        if at == len(words) or words[at].startswith(("-", "…")):
            break
        if words[at] not in commands:
            return f"`{call}`: order-worker has no command {words[at]}" if must_be else None
        command, at = commands[words[at]], at + 1
    if at == 0 and not must_be:
        return None
    known = _OF_EVERY_COMMAND.union(*(one.opts + one.secondary_opts for one in command.params))
    options = (word.partition("=")[0] for word in words[at:] if re.match(r"--?[a-z]", word))
    unknown = [option for option in options if option not in known]
    return f"`{call}`: {command.name} has no option {', '.join(unknown)}" if unknown else None


def without_index(page: str) -> list[str]:
    """A page of docs/ has to be in the site's navigation, and on the index of its folder."""
    path, faults = page.removeprefix("docs/"), []
    folder = path.rpartition("/")[0]
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:")[2]
    if not re.search(rf": ({re.escape(path)}|{re.escape(folder)}/)$", navigation, re.MULTILINE):
        faults.append(f"{page}: mkdocs.yml does not have it in its nav")
    index = f"docs/{folder}/README.md" if folder else "docs/README.md"
    if page != index and page not in {absolute(index, link.target)[0] for link in links_of(read(index))}:
        faults.append(f"{page}: {index} does not link to it")
    return faults
