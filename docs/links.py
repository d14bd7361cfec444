"""The links of a page, and where they lead on the site. Pure: the build and the tests ask the same."""

import posixpath
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

INCLUDED: Final = {
    "ARCHITECTURE.md": "architecture.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security-policy.md",
    "bench/README.md": "benchmark.md",
    "bench/more.md": "benchmark-more.md",
    "bench/tried.md": "benchmark-tried.md",
    "contracts/README.md": "contracts.md",
    "contracts/examples/README.md": "contract-examples.md",
    "tests/faults/README.md": "faults.md",
}
"""Pages that lie elsewhere in the repository, and their names on the site."""
PICTURES: Final = (".svg", ".png")

_FENCE: Final = re.compile(r"^ *(```+|~~~+)")
_CODE: Final = re.compile(r"(`+)(?!`)(.*?)(?<!`)\1(?!`)")
_LINK: Final = re.compile(r"!?\[(?P<label>(?:!?\[[^\[\]]*\]\([^()\s]*\)|[^\[\]])*)\]\((?P<target>[^()\s]+)\)")
_HEADING: Final = re.compile(r"^#{1,6} +(.+?) *#*$")
_ELSEWHERE: Final = re.compile(r"[a-z]+:")


@dataclass(frozen=True)
class Link:
    """`[label](target)`, by its place in the text."""

    line: int  # from 1
    target: str
    span: tuple[int, int]
    label: tuple[int, int]


def links_of(text: str) -> Iterator[Link]:
    """Each link and picture outside of code, pictures within a link's label included."""
    blanked = _without_code(text)
    found = list(_LINK.finditer(blanked))
    for match in found:
        yield _link(blanked, match, 0)
        start = match.start("label")
        for inner in _LINK.finditer(match["label"]):
            yield _link(blanked, inner, start)


def _link(text: str, match: re.Match[str], offset: int) -> Link:
    begin, end = match.start() + offset, match.end() + offset
    label = match.start("label") + offset, match.end("label") + offset
    return Link(text.count("\n", 0, begin) + 1, match["target"], (begin, end), label)


def is_elsewhere(target: str) -> bool:
    """It leads to another site."""
    return bool(_ELSEWHERE.match(target))


def anchors_of(text: str) -> set[str]:
    """What `#…` may name on the page: its headings, as GitHub and the site write them."""
    headings = (_HEADING.match(line) for line in _without_code(text, blank_spans=False).splitlines())
    return {anchor_of(match[1]) for match in headings if match}


def anchor_of(heading: str) -> str:
    plain = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", heading)
    return re.sub(r"[^\w\- ]", "", plain.strip().lower()).replace(" ", "-")


def absolute(page: str, target: str) -> tuple[str, str]:
    """The file that a link of the page means, from the repository's root, and its anchor.

    `page` is the page's own path from there. An empty target path is the page itself.
    """
    path, _, fragment = target.partition("#")
    return posixpath.normpath(posixpath.join(posixpath.dirname(page), path)) if path else page, fragment


def site_target(page: str, target: str) -> str | None:
    """What the link becomes on the site; None where the site has no such page."""
    if is_elsewhere(target) or target.startswith("#"):
        return target
    path, fragment = absolute(page, target)
    found = site_path(path)
    if found is None:
        return None
    here = posixpath.dirname(site_path(page) or page)
    return posixpath.relpath(found, here or ".") + (f"#{fragment}" if fragment else "")


def site_path(path: str) -> str | None:
    """Where the site has a file of the repository, as mkdocs names it; None: nowhere."""
    if path in INCLUDED:
        return INCLUDED[path]
    if path.startswith("docs/") and not path.endswith(".py"):
        return path.removeprefix("docs/")
    return path if path.endswith(PICTURES) else None


def rewritten(text: str, becomes: Callable[[str], str | None]) -> str:
    """The text with other targets; a link whose target becomes None is its label alone."""
    parts, at = [], 0
    for link in links_of(text):
        begin, end = link.span
        if begin < at:  # a picture within a label, which is written with it
            continue
        target = becomes(link.target)
        label = rewritten(text[slice(*link.label)], becomes)
        mark = text[begin : link.label[0]]
        parts += [text[at:begin], label if target is None else f"{mark}{label}]({target})"]
        at = end
    return "".join([*parts, text[at:]])


def _without_code(text: str, *, blank_spans: bool = True) -> str:
    """The text with as many characters, where nothing in code looks like a link or a heading."""
    lines, fence = [], ""
    for line in text.split("\n"):
        opening = _FENCE.match(line)
        if fence or opening:
            if opening and not fence:
                fence = opening[1]
            elif opening and opening[1].startswith(fence):
                fence = ""
            lines.append(" " * len(line))
        else:
            lines.append(_CODE.sub(_blank, line) if blank_spans else line)
    return "\n".join(lines)


def _blank(match: re.Match[str]) -> str:
    return "x" * len(match[0])
