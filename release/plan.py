"""What stands against a release, decided from what is known of the checkout. Pure."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

_VERSION: Final = re.compile(r"(0|[1-9]\d{0,5})\.(0|[1-9]\d{0,5})\.(0|[1-9]\d{0,5})", re.ASCII)
_SECTION: Final = re.compile(r"^## (?P<title>.*)\n(?P<text>(?:(?!## ).*\n?)*)", re.MULTILINE)
_DATE: Final = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_NAMED: Final = 3  # files that a message names


@dataclass(frozen=True, slots=True)
class Checkout:
    """What the files and git say of the commit that is to be released."""

    version: str
    changelog: str
    changed: Sequence[str]  # files that are not as committed
    tags: Sequence[str]


def is_version(text: str) -> bool:
    """Whether it is three numbers, as in 0.2.0."""
    return _VERSION.fullmatch(text) is not None


def obstacles(version: str, checkout: Checkout) -> list[str]:
    """What has to be done before this version can be released, a line each; nothing: it can."""
    return [
        *_of_the_version(version, checkout),
        *_of_the_changelog(version, checkout.changelog),
        *_of_the_working_tree(checkout.changed),
    ]


def _of_the_version(version: str, checkout: Checkout) -> Iterator[str]:
    if checkout.version != version:
        yield f'contracts/version.py says {checkout.version}: write __version__ = "{version}", and commit'
    released = [tag[1:] for tag in checkout.tags if tag.startswith("v") and is_version(tag[1:])]
    latest = max(released, key=_numbers, default=None)
    if version in released:
        yield f"the tag v{version} exists: take a version above {latest}"
    elif latest and _numbers(version) < _numbers(latest):
        yield f"{latest} is released already: take a version above it"


def _of_the_changelog(version: str, changelog: str) -> Iterator[str]:
    sections = {match["title"].strip(): match["text"].strip() for match in _SECTION.finditer(changelog)}
    heading = f"## {version} - YYYY-MM-DD"
    ours = [title for title in sections if title.split(" - ")[0] == version]
    if not ours:
        yield f'CHANGELOG.md has no section of this version: write "{heading}" above its entries'
    for title in ours:
        if not _DATE.fullmatch(title.partition(" - ")[2]):
            yield f'CHANGELOG.md: "## {title}" has no date: write "{heading}"'
        if not sections[title]:
            yield f'CHANGELOG.md: "## {title}" has no entries'
    if sections.get("Unreleased"):
        yield f'CHANGELOG.md has entries below "## Unreleased": move them below "{heading}"'


def _of_the_working_tree(changed: Sequence[str]) -> Iterator[str]:
    if changed:
        more = f" and {len(changed) - _NAMED:,} more" if len(changed) > _NAMED else ""
        yield f"not committed: {', '.join(changed[:_NAMED])}{more}: commit or remove what has changed"


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))
