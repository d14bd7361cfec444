"""The operator's page in a real browser."""

import functools
import http.server
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from html import escape
from itertools import islice
from pathlib import Path

import pytest

from tests.acceptance.page.visits import Placed, get
from tests.support.accessibility import complaints
from tests.support.browser import Browser
from tests.support.promises import Scene
from tests.support.worker_process import WorkerProcess


@pytest.mark.takes_long
def test_a_browser_shows_the_page_without_complaint_and_asks_nobody_else(
    worker: WorkerProcess, placed: Placed, scene: Scene, browser: Browser, tmp_path: Path
):
    seen = browser.open(f"{worker.url}/")
    assert seen.console == []
    assert "<title>group-" in seen.dom, "no script of a dead letter has changed it"
    assert "product 1: 2 requested, 0 available" in seen.dom
    (form,) = re.findall(r"<form[^>]*>", seen.dom)
    (field,) = re.findall(r"<input[^>]*>", seen.dom)
    assert ('action="./orders"' in form, 'method="get"' in form, 'name="id"' in field) == (True,) * 3
    # What the form makes of an id that was typed.
    found = browser.open(f"{worker.url}/orders?id=+{placed.rejected}")
    assert found.console == []
    assert f'<span class="id">{placed.rejected}</span>' in found.dom
    assert "there was no product 77" in found.dom

    (sample,) = [
        path
        for path in (f"/dead-letters/1:{offset}" for offset in range(10))
        if 'as text">&lt;script&gt;' in get(worker.url + path)[2]
    ]
    letter = browser.open(worker.url + sample)
    assert letter.console == []
    assert "&lt;img src=http://192.0.2.1/x.png onerror=alert(1)&gt;" in letter.dom
    assert letter.dom.count("<img") == 1

    record = f"/records/{scene.topics.order_placed}/0:0"
    lists = ("/orders", "/rejections", "/dead-letters")
    paths = ("/", *lists, f"/explain/{placed.confirmed}", sample, record, "/explain/7")
    pages = {path: get(worker.url + path)[2] for path in paths}
    light = {path: with_style(html, worker) for path, html in pages.items()}
    assert widths(browser, light, tmp_path) == {path: {n: (n, 0) for n in WIDTHS} for path in paths}
    dark = {f"{path} in the dark": with_style(html, worker, "dark") for path, html in pages.items()}
    assert complaints(browser, light | dark, tmp_path) == {name: [] for name in light | dark}


def test_a_browser_shows_the_events_page_and_may_ask_nobody_else(worker: WorkerProcess, browser: Browser):
    headers = get(f"{worker.url}/docs")[1]
    assert "default-src 'self'" in headers["content-security-policy"]
    seen = browser.open(f"{worker.url}/docs")
    assert "OrderPlaced" in seen.dom.partition('id="asyncapi"')[2].partition("<script")[0], "rendered"
    assert seen.console == []


def with_style(html: str, worker: WorkerProcess, look: str = "light") -> str:
    """A page that needs no other file, as somebody sees it who prefers that look."""
    style = get(f"{worker.url}/assets/page.css")[2]
    assert style.count(DARK) == 1
    style = style.replace(DARK, "@media all" if look == "dark" else "@media not all")
    html, links = re.subn(r'<link rel="stylesheet"[^>]*>', lambda _: f"<style>{style}</style>", html)
    assert links == 1
    return html


def widths(browser: Browser, pages: Mapping[str, str], folder: Path) -> dict[str, dict[int, tuple[int, int]]]:
    """How wide each page is in windows of several widths, and how many cells of its tables are out of sight.

    It is no wider where nothing is scrolled sideways. The pages run no script and are in nobody's frame, so
    these are copies of them. (A window without a screen is 500 wide at least, a frame is not.)
    """
    frames = "".join(
        f'<iframe width="{width}" srcdoc="{escape(html)}"></iframe>'
        for html in pages.values()
        for width in WIDTHS
    )
    measure = (
        "const cut = (f, r) => !r.width || !r.height || r.left < 0 || r.right > f.innerWidth;"
        "const cells = f => [...f.document.querySelectorAll('td')].map(c => c.getBoundingClientRect());"
        f"onload = () => document.title = {FRAMES}.map(f => [f.innerWidth,"
        " f.document.documentElement.scrollWidth, cells(f).filter(r => cut(f, r)).length].join(':')).join()"
    )
    measured = folder / "measured.html"
    measured.write_text(f"<title></title>{frames}<script>{measure}</script>", "utf-8")
    title = re.search(r"<title>([\d:,]+)</title>", browser.open(measured.as_uri()).dom)
    assert title
    found = iter([int(number) for number in one.split(":")] for one in title[1].split(","))
    return {path: {window: (page, cut) for window, page, cut in islice(found, len(WIDTHS))} for path in pages}


WIDTHS = (360, 800, 1_400)


DARK = "@media (prefers-color-scheme: dark)"


FRAMES = "[...document.querySelectorAll('iframe')].map(f => f.contentWindow)"


@contextmanager
def served(folder: Path) -> Iterator[str]:
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_the_browser_would_have_complained(browser: Browser, tmp_path: Path):
    policy = "<meta http-equiv='content-security-policy' content=\"default-src 'none'\">"
    (tmp_path / "bad.html").write_text(f"{policy}<p style='color: red'>x</p><script>1</script>")
    with served(tmp_path) as url:
        assert len(browser.open(f"{url}/bad.html").console) >= 2
