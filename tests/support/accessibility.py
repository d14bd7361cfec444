"""The accessibility faults that axe finds on pages."""

import json
import re
from collections.abc import Mapping
from html import unescape
from importlib.resources import files
from pathlib import Path

from tests.support.browser import Browser

# All pages are checked in one browser, one after the other: its start costs more than axe does.
_RUN = """
onload = async () => {
  const found = {};
  for (const [name, html] of Object.entries(PAGES)) {
    document.open();
    document.write(html);
    document.close();
    found[name] = await axe.run(document, {resultTypes: ["violations"]}).then(
      found => found.violations.map(
        one => one.id + ": " + one.nodes.map(node => node.html.slice(0, 120)).join(" | ")),
      error => ["axe failed: " + error],
    );
  }
  const shown = document.createElement("pre");
  shown.id = "axe";
  shown.textContent = JSON.stringify(found);
  document.body.append(shown);
};
"""
_FOUND = re.compile(r'<pre id="axe">(.*?)</pre>', re.DOTALL)


def complaints(browser: Browser, pages: Mapping[str, str], folder: Path) -> dict[str, list[str]]:
    """By page, by rule, with the places; `pages` are HTML that needs no other file, by any name."""
    source = (files("axe_core_python") / "axe.min.js").read_text("utf-8")
    html = json.dumps(dict(pages)).replace("<", "\\u003c")
    page = folder / "axe.html"
    page.write_text(f"<script>{source}</script><script>const PAGES = {html};{_RUN}</script>", "utf-8")
    found = _FOUND.search(browser.open(page.as_uri(), waits_ms=10_000).dom)
    assert found, "axe did not come to its end"
    answer: dict[str, list[str]] = json.loads(unescape(found[1]))
    assert answer.keys() == pages.keys()
    return answer
