"""What axe finds of a page that somebody could not use who sees, hears or points less well."""

import json
import re
from html import unescape
from importlib.resources import files
from pathlib import Path

from tests.support.browser import Browser

_RUN = """
axe.run(document, {resultTypes: ["violations"]}).then(
  found => found.violations.map(
    one => one.id + ": " + one.nodes.map(node => node.html.slice(0, 120)).join(" | ")),
  error => ["axe failed: " + error],
).then(told => {
  const shown = document.createElement("pre");
  shown.id = "axe";
  shown.textContent = JSON.stringify(told);
  document.body.append(shown);
});
"""
_FOUND = re.compile(r'<pre id="axe">(.*?)</pre>', re.DOTALL)


def complaints(browser: Browser, html: str, folder: Path) -> list[str]:
    """By rule, with the places; `html` is a page that needs no other file."""
    source = (files("axe_core_python") / "axe.min.js").read_text("utf-8")
    page = folder / "axe.html"
    page.write_text(
        html.replace("</body>", f"<script>{source}</script><script>{_RUN}</script></body>"), "utf-8"
    )
    found = _FOUND.search(browser.open(page.as_uri(), waits_ms=10_000).dom)
    assert found, "axe did not come to its end"
    told: list[str] = json.loads(unescape(found[1]))
    return told
