"""The operator's page of a real worker: over HTTP, and in a real browser."""

import functools
import http.server
import re
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from email.message import Message as Headers
from html import escape, unescape
from pathlib import Path
from urllib.parse import quote, urlencode, urljoin
from uuid import uuid4

import pytest

from tests.support.browser import Browser
from tests.support.builders import line, order_value
from tests.support.deadline import eventually
from tests.support.promises import Scene
from tests.support.stripping_proxy import stripping_proxy
from tests.support.worker_process import WorkerProcess, Workers

HREF = re.compile(r'(?:href|src|action)="([^"]*)"')
SCRIPT = "<script>document.title='x'</script><img src=http://192.0.2.1/x.png onerror=alert(1)>"


class NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        return None


def get(url: str, method: str = "GET") -> tuple[int, Headers, str]:
    opener = urllib.request.build_opener(NoRedirect)
    try:
        with opener.open(urllib.request.Request(url, method=method), timeout=10) as answer:
            return answer.status, answer.headers, answer.read().decode(errors="replace")
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read().decode()


def text_of(html: str) -> str:
    """As a person reads it."""
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]*>", " ", html)))


def everything(scene: Scene) -> list[object]:
    """What a change would show in."""
    told = sorted(scene.outcomes() + scene.dead_letters(), key=lambda m: (m.timestamp, m.partition, m.offset))
    return [told, scene.shop.stock(), scene.lag()]


class Told:
    """What was placed: an order of each fate."""

    def __init__(self, scene: Scene) -> None:
        self.confirmed, self.rejected = uuid4(), uuid4()
        scene.shop.stock_up({1: 5})
        confirmed = order_value(line(1, 5), order_id=self.confirmed)
        scene.place([confirmed, confirmed], partition=0)
        scene.place([order_value(line(1, 2), line(77, 1), order_id=self.rejected)], partition=0)
        scene.place([order_value(line(1, 9), order_id=self.confirmed)], partition=0)  # a conflict
        scene.place([order_value(line(1, -1))], partition=1)
        hostile = [("error.message", SCRIPT.encode()), (SCRIPT, SCRIPT.encode())]
        scene.place([SCRIPT.encode(), None, b"\xff\xfe\x00"], partition=1, headers=hostile)


@pytest.fixture
def told(scene: Scene) -> Told:
    return Told(scene)


@pytest.fixture
def worker(told: Told, scene: Scene, workers: Workers) -> WorkerProcess:
    started = workers.start().wait_until_ready()
    scene.wait_until_drained()
    return started


def test_the_page_shows_the_group_and_changes_nothing(
    worker: WorkerProcess, told: Told, scene: Scene, workers: Workers
):
    before = everything(scene)
    status, headers, html = get(f"{worker.url}/")
    text = text_of(html)
    assert status == 200
    assert headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]
    assert (headers["x-content-type-options"], headers["referrer-policy"]) == ("nosniff", "no-referrer")
    assert (headers["set-cookie"], headers["cache-control"]) == (None, "no-store")

    for words in (scene.group_id, scene.topics.order_placed, "This worker ready", "Partitions 0, 1, 2, 3"):
        assert words in text
    assert "confirmed 1 50 % rejected 1 50 %" in text
    assert "unknown product 1 100 %" in text
    assert "duplicates, nothing done 1" in text
    assert "product 1: 2 requested, 0 available there was no product 77" in text
    assert f'href="./explain/{told.rejected}"' in html
    for code in ("not json", "invalid order", "empty value", "order id conflict"):
        assert code in text

    # Everything that the page leads to is there, and nothing can be done but reading.
    links = set(re.findall(r'(?:href|action)="([^"]*)"', html)) - {"./orders"}
    assert len(links) >= 10
    for link in links:
        assert get(urljoin(f"{worker.url}/", link))[0] == 200, link
    for path in ("/", "/orders", f"/explain/{told.confirmed}", "/dead-letters/1:0"):
        for method in ("POST", "PUT", "DELETE", "PATCH"):
            assert get(worker.url + path, method)[0] == 405
        assert get(worker.url + path, "HEAD")[2] == ""
    assert everything(scene) == before

    again = get(f"{worker.url}/?refresh")[2]
    assert ("http-equiv" in html, 'http-equiv="refresh" content="5"' in again) == (False, True)
    assert ('href="./?refresh"' in html, "stop refreshing" in again) == (True, True)

    # A second worker's page shows the whole group, too, though it has counted nothing itself.
    other = workers.start().wait_until_ready()
    eventually(lambda: "members 2" in text_of(get(f"{other.url}/")[2]))
    assert "confirmed 1 50 % rejected 1 50 %" in text_of(get(f"{other.url}/")[2])
    assert "confirmed 0 rejected 0" in text_of(get(f"{other.url}/")[2])

    # Whoever loads it over and over keeps no order waiting.
    ids = [uuid4() for _ in range(300)]
    scene.place(order_value(line(1), order_id=order_id) for order_id in ids)
    with ThreadPoolExecutor(20) as viewers:
        assert set(viewers.map(lambda _: get(f"{worker.url}/")[0], range(200))) == {200}
    scene.wait_until_drained()
    scene.assert_promises([told.confirmed, told.rejected, *ids], dead_letters=5)
    assert (worker.stop(), other.stop()) == (0, 0)
    assert "Traceback" not in workers.logs


def test_an_order_is_found_by_its_id_and_explained(worker: WorkerProcess, told: Told, scene: Scene):
    for typed in (str(told.rejected), f"  {str(told.rejected).upper()} ", f"{{{told.rejected}}}"):
        status, headers, _ = get(f"{worker.url}/orders?{urlencode({'id': typed})}")
        assert (status, headers["location"]) == (303, f"explain/{told.rejected}")
    text = text_of(get(f"{worker.url}/explain/{told.rejected}")[2])
    assert "because product 1: 2 requested, 0 available; there was no product 77." in text
    assert f"announced once at {scene.topics.order_rejected}-0@" in text
    text = text_of(get(f"{worker.url}/explain/{told.confirmed}")[2])
    assert "duplicate: the same order again, nothing was done" in text
    assert "conflict: another order under this id, a dead letter" in text
    assert "Rows: order pending, total 12.50" in text
    unknown = text_of(get(f"{worker.url}/explain/{uuid4()}")[2])
    assert "not found Not decided" in unknown
    for odd in ("", "7", "<script>alert(1)<b>", "\udcff\0", "x" * 5_000):
        asked = urlencode({"id": odd.encode("utf-8", "surrogateescape")}, quote_via=quote)
        for path in (f"/orders?{asked}", f"/explain/{asked.partition('=')[2] or 'x'}"):
            status, _, html = get(worker.url + path)
            assert (status, "Write an order id: a UUID like" in html) == (400, True), path
            assert "<script" not in html
    assert get(f"{worker.url}/orders")[0] == 400
    assert get(f"{worker.url}/orders?{'&'.join('a=1' for _ in range(50))}")[0] == 400

    letter = text_of(get(f"{worker.url}/dead-letters/1:999")[2])
    assert "No dead letter lies at 1:999" in letter
    assert get(f"{worker.url}/dead-letters/9:0")[0] == 404
    assert get(f"{worker.url}/dead-letters/x")[0] == 400


def test_a_browser_shows_the_page_without_complaint_and_asks_nobody_else(
    worker: WorkerProcess, told: Told, browser: Browser, tmp_path: Path
):
    seen = browser.open(f"{worker.url}/")
    assert seen.console == []
    assert "<title>group-" in seen.dom, "no script of a dead letter has changed it"
    assert "product 1: 2 requested, 0 available" in seen.dom
    (form,) = re.findall(r"<form[^>]*>", seen.dom)
    (field,) = re.findall(r"<input[^>]*>", seen.dom)
    assert ('action="./orders"' in form, 'method="get"' in form, 'name="id"' in field) == (True,) * 3
    # What the form makes of an id that was typed.
    found = browser.open(f"{worker.url}/orders?id=+{told.rejected}")
    assert found.console == []
    assert f'<span class="id">{told.rejected}</span>' in found.dom
    assert "there was no product 77" in found.dom

    (sample,) = [
        path
        for path in (f"/dead-letters/1:{offset}" for offset in range(10))
        if "<pre>&lt;script&gt;" in get(worker.url + path)[2]
    ]
    letter = browser.open(worker.url + sample)
    assert letter.console == []
    assert "&lt;img src=http://192.0.2.1/x.png onerror=alert(1)&gt;" in letter.dom
    assert letter.dom.count("<img") == 1

    for path in ("/", f"/explain/{told.confirmed}", sample, "/explain/7"):
        assert widths(browser, worker, path, tmp_path) == {400: 400, 800: 800, 1_400: 1_400}, path


def test_a_browser_shows_the_events_page_and_may_ask_nobody_else(worker: WorkerProcess, browser: Browser):
    headers = get(f"{worker.url}/docs")[1]
    assert "default-src 'self'" in headers["content-security-policy"]
    seen = browser.open(f"{worker.url}/docs")
    assert "OrderPlaced" in seen.dom.partition('id="asyncapi"')[2].partition("<script")[0], "rendered"
    assert seen.console == []


def test_behind_a_proxy_that_strips_a_prefix_every_link_leads_on(worker: WorkerProcess, told: Told):
    typed = (f"orders?id={told.confirmed}", "orders?id=7", "explain/7", "dead-letters/x", "dead-letters/9:0")
    with stripping_proxy(worker.url, "/shop/worker") as top:
        # Those who type may be wrong: such a page has links as well.
        waiting, reached = {top, *(top + path for path in typed)}, dict[str, int]()
        while waiting:
            url = waiting.pop()
            status, headers, body = get(url)
            reached[url] = status
            found = HREF.findall(body) if headers.get_content_type() == "text/html" else []
            links = {urljoin(url, unescape(link)) for link in [*found, *headers.get_all("location", [])]}
            assert [link for link in links if not link.startswith(top)] == [], url
            waiting |= links - reached.keys()
    paths = {url.removeprefix(top): status for url, status in reached.items()}
    assert {path for path, status in paths.items() if status == 404} == {"dead-letters/9:0"}
    kinds = {re.sub(r"[0-9a-f-]{36}|\d+:\d+", "…", path) for path in paths}
    assert kinds >= {"", "?refresh", "explain/…", "dead-letters/…", "docs", "metrics", "readyz"}
    assert kinds >= {"assets/page.css", "assets/page.svg", "assets/asyncapi.js", "assets/asyncapi.css"}
    assert paths[f"explain/{told.confirmed}"] == 200


def test_every_answer_lets_no_other_site_in(worker: WorkerProcess, subtests: pytest.Subtests):
    for path in ("/", "/docs", "/livez", "/metrics", "/outcomes/x", "/nowhere", "/docs.json"):
        with subtests.test(path=path):
            headers = get(worker.url + path)[1]
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["referrer-policy"] == "no-referrer"
            assert "frame-ancestors 'none'" in headers["content-security-policy"]


def widths(browser: Browser, worker: WorkerProcess, path: str, folder: Path) -> dict[int, int]:
    """How wide the page is in windows of three widths: no wider, where nothing is scrolled sideways.

    The page runs no script and is in nobody's frame, so this is a copy of it, with the same style. (A window
    without a screen is 500 wide at least, a frame is not.)
    """
    style = get(f"{worker.url}/assets/page.css")[2]
    html, links = re.subn(
        r'<link rel="stylesheet"[^>]*>', f"<style>{style}</style>", get(worker.url + path)[2]
    )
    assert links == 1
    copy = escape(html)
    frames = "".join(f'<iframe width="{width}" srcdoc="{copy}"></iframe>' for width in (400, 800, 1_400))
    measure = (
        f"onload = () => document.title = {FRAMES}"
        ".map(f => f.innerWidth + ':' + f.document.documentElement.scrollWidth).join()"
    )
    measured = folder / "measured.html"
    measured.write_text(f"<title></title>{frames}<script>{measure}</script>", "utf-8")
    title = re.search(r"<title>([\d:,]+)</title>", browser.open(measured.as_uri()).dom)
    assert title
    return {int(a): int(b) for a, b in (pair.split(":") for pair in title[1].split(","))}


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
