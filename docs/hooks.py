"""What the site needs beside mkdocs: pages outside of docs/, folders in the navigation, nothing foreign.

`make docs` builds it. A link to a file that the site does not have leads to the repository, where `repo_url`
is set, and is plain text elsewhere.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from docs.links import INCLUDED, PICTURES, absolute, links_of, rewritten, site_target

ROOT: Final = Path(__file__).parent.parent
_SOURCES: Final = {name: path for path, name in INCLUDED.items()}
_FOREIGN: Final = re.compile(
    r"<(?:script|img|iframe|source|link(?![^>]*rel=\"?canonical))\b[^>]*\b(?:src|href)=\"?(?:https?:)?//[^\s\">]+"
)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """`Commands: commands/` in the navigation is all pages of that folder, its index first."""
    config.nav = [_expanded(entry, Path(config.docs_dir)) for entry in config.nav or []]
    return config


def _expanded(entry: Any, docs: Path) -> Any:
    if isinstance(entry, dict):
        return {title: _expanded(value, docs) for title, value in entry.items()}
    if isinstance(entry, list):
        return [_expanded(value, docs) for value in entry]
    if isinstance(entry, str) and entry.endswith("/"):
        pages = sorted((docs / entry).glob("*.md"), key=lambda path: (path.name != "README.md", path.name))
        return [f"{entry}{path.name}" for path in pages]
    return entry


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages of `INCLUDED`, and the pictures that they show."""
    for path, name in INCLUDED.items():
        if (ROOT / path).exists():
            files.append(File.generated(config, name, abs_src_path=str(ROOT / path)))
            for picture in _pictures_of(path):
                if files.get_file_from_path(picture) is None:
                    files.append(File.generated(config, picture, abs_src_path=str(ROOT / picture)))
    return files


def _pictures_of(page: str) -> Iterator[str]:
    """Those that lie outside of docs/, from the root."""
    for link in links_of((ROOT / page).read_text(encoding="utf-8")):
        path, _ = absolute(page, link.target)
        if path.endswith(PICTURES) and not path.startswith("docs/"):
            yield path


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Each link leads to where the site has its file."""
    here = _SOURCES.get(page.file.src_uri) or f"docs/{page.file.src_uri}"

    def becomes(target: str) -> str | None:
        found = site_target(here, target)
        if found is None and config.repo_url:
            path, _ = absolute(here, target)
            return f"{config.repo_url.rstrip('/')}/blob/main/{path}"
        return found

    return rewritten(markdown, becomes)


def on_post_build(*, config: MkDocsConfig) -> None:
    """The site works without a network: a page that fetches from another host ends the build."""
    for path in sorted(Path(config.site_dir).rglob("*.html")):
        if match := _FOREIGN.search(path.read_text(encoding="utf-8")):
            raise PluginError(f"{path.relative_to(config.site_dir)} fetches from another host: {match[0]}")
