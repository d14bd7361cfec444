"""The operator's page of a worker: what it shows, and that it changes nothing."""

import re
from concurrent.futures import ThreadPoolExecutor
from html import unescape
from urllib.parse import quote, urlencode, urljoin
from uuid import uuid4

import pytest

from tests.acceptance.page.visits import Placed, get, text_of
from tests.support.builders import line, order_value
from tests.support.deadline import eventually
from tests.support.promises import Scene
from tests.support.stripping_proxy import stripping_proxy
from tests.support.worker_process import WorkerProcess, Workers
from worker import __version__

HREF = re.compile(r'(?:href|src|action)="([^"]*)"')


def everything(scene: Scene) -> list[object]:
    """What a change would show in."""
    published = sorted(
        scene.outcomes() + scene.dead_letters(), key=lambda m: (m.timestamp, m.partition, m.offset)
    )
    return [published, scene.shop.stock(), scene.lag()]


def test_the_page_shows_the_group_and_changes_nothing(
    worker: WorkerProcess, placed: Placed, scene: Scene, workers: Workers
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
    assert f'href="./explain/{placed.rejected}"' in html
    for code in ("not json", "invalid order", "empty value", "order id conflict"):
        assert code in text

    # Everything that the page leads to is there, and nothing can be done but reading.
    links = {unescape(link) for link in re.findall(r'(?:href|action)="([^"]*)"', html)}
    assert len(links) >= 10
    for link in links:
        assert get(urljoin(f"{worker.url}/", link))[0] == 200, link
    lists = ("/orders", "/rejections", "/dead-letters")
    pages = ("/", *lists, f"/explain/{placed.confirmed}", "/dead-letters/1:0")
    for path in (*pages, "/metrics", "/docs", "/readyz", "/nowhere"):
        for method in ("POST", "PUT", "DELETE", "PATCH"):
            assert get(worker.url + path, method)[0] == 405
    for path in pages:
        assert get(worker.url + path, "HEAD")[2] == ""
    assert everything(scene) == before

    again = get(f"{worker.url}/?refresh")[2]
    assert ("http-equiv" in html, 'http-equiv="refresh" content="5"' in again) == (False, True)
    assert ('href="./?refresh"' in html, "stop refreshing" in again) == (True, True)

    # A second worker's page shows the whole group, too, though it has counted nothing itself.
    other = workers.start().wait_until_ready()
    row = re.compile(rf"…\w{{5}} {re.escape(__version__)} \S+ 2\b")
    eventually(lambda: len(row.findall(text_of(get(f"{other.url}/")[2]))) == 2)
    eventually(lambda: "members 2" in text_of(get(f"{other.url}/")[2]))
    assert "confirmed 1 50 % rejected 1 50 %" in text_of(get(f"{other.url}/")[2])
    assert "confirmed 0 rejected 0" in text_of(get(f"{other.url}/")[2])

    # A page that is loaded over and over keeps no order waiting.
    ids = [uuid4() for _ in range(300)]
    scene.place(order_value(line(1), order_id=order_id) for order_id in ids)
    with ThreadPoolExecutor(20) as viewers:
        assert set(viewers.map(lambda _: get(f"{worker.url}/")[0], range(200))) == {200}
    scene.wait_until_drained()
    scene.assert_promises([placed.confirmed, placed.rejected, *ids], dead_letters=5)
    assert (worker.stop(), other.stop()) == (0, 0)
    assert "Traceback" not in workers.logs


def test_an_order_is_found_by_its_id_and_explained(worker: WorkerProcess, placed: Placed, scene: Scene):
    for typed in (str(placed.rejected), f"  {str(placed.rejected).upper()} ", f"{{{placed.rejected}}}"):
        status, headers, _ = get(f"{worker.url}/orders?{urlencode({'id': typed})}")
        assert (status, headers["location"]) == (303, f"explain/{placed.rejected}")
    text = text_of(get(f"{worker.url}/explain/{placed.rejected}")[2])
    assert "because product 1: 2 requested, 0 available; there was no product 77." in text
    assert f"published once at {scene.topics.order_rejected}-0@" in text
    text = text_of(get(f"{worker.url}/explain/{placed.confirmed}")[2])
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
    assert get(f"{worker.url}/orders?{'&'.join('a=1' for _ in range(50))}")[0] == 400

    letter = text_of(get(f"{worker.url}/dead-letters/1:999")[2])
    assert "No dead letter lies at 1:999" in letter
    assert get(f"{worker.url}/dead-letters/9:0")[0] == 404
    assert get(f"{worker.url}/dead-letters/x")[0] == 400


def test_lists_are_filtered_and_turned_page_by_page(worker: WorkerProcess, placed: Placed, scene: Scene):
    scene.shop.sql(
        "INSERT INTO orders (id, user_id, total_amount, placed_at, created_at)"
        " SELECT gen_random_uuid(), 2, 1, now(), now() - n * interval '1 minute'"
        " FROM generate_series(1, 70) AS n"
    )
    seen, link = [], "orders"
    while link:
        html = get(f"{worker.url}/{link}")[2]
        seen.append(re.findall(r'class="id" href="./explain/([0-9a-f-]{36})"', html))
        older = re.search(r'href="./(orders[^"]*after=[^"]*)">older', html)
        link = unescape(older[1]) if older else ""
    assert [len(page) for page in seen] == [50, 21]
    assert len({order_id for page in seen for order_id in page}) == 71
    assert seen[0][0] == str(placed.confirmed), "the newest first"
    assert get(f"{worker.url}/orders?user=1")[2].count('href="./explain/') == 1
    assert "There are none." in get(f"{worker.url}/orders?status=cancelled")[2]

    rejected = [
        get(f"{worker.url}/rejections?reason={code}")[2] for code in ("unknown_product", "unknown_user")
    ]
    assert [f"./explain/{placed.rejected}" in html for html in rejected] == [True, False]
    bad = {"orders?user=x": "user: ", "rejections?reason=x": "reason: ", "dead-letters?size=9": "size: "}
    for address, says in bad.items():
        status, _, html = get(f"{worker.url}/{address}")
        assert (status, says in text_of(html)) == (400, True), address


def test_from_a_group_of_letters_one_comes_to_each_to_its_order_and_to_its_record(
    worker: WorkerProcess, placed: Placed, scene: Scene
):
    (group,) = re.findall(r'href="./(dead-letters\?code=order_id_conflict[^"]*)"', get(f"{worker.url}/")[2])
    listed = get(f"{worker.url}/{unescape(group)}")[2]
    (place,) = re.findall(r'href="./dead-letters/([\d:]+)"', listed)
    assert f'href="./explain/{placed.confirmed}"' in listed
    assert "open; its id is decided for another order" in text_of(listed)
    assert "order-worker dead-letters redrive --code order_id_conflict" in text_of(listed)
    letter = get(f"{worker.url}/dead-letters/{place}")[2]
    assert f"order-worker dead-letters redrive {place} " in text_of(letter)
    assert f'href="../explain/{placed.confirmed}"' in letter
    (source,) = re.findall(r'href="../(records/[^"]+)"', letter)
    assert source.startswith(f"records/{scene.topics.order_placed}/0:")
    assert str(placed.confirmed) in get(f"{worker.url}/{source}")[2]
    explained = get(f"{worker.url}/explain/{placed.confirmed}")[2]
    places = set(re.findall(r'href="../((?:records|dead-letters)/[^"]+)"', explained))
    assert len([path for path in places if path.startswith("records/")]) == 4, "three inputs, one outcome"
    assert {get(f"{worker.url}/{path}")[0] for path in places} == {200}
    assert get(f"{worker.url}/records/somebody-elses/0:0")[0] == 404
    assert get(f"{worker.url}/records/{scene.topics.order_placed}/0:99")[0] == 404
    assert get(f"{worker.url}/records/{scene.topics.order_placed}/x")[0] == 400


def test_behind_a_proxy_that_strips_a_prefix_every_link_leads_on(worker: WorkerProcess, placed: Placed):
    typed = (
        f"orders?id={placed.confirmed}",
        "orders?id=7",
        "explain/7",
        "dead-letters/x",
        "dead-letters/9:0",
    )
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
    assert paths[f"explain/{placed.confirmed}"] == 200


def test_every_answer_lets_no_other_site_in(worker: WorkerProcess, subtests: pytest.Subtests):
    paths = ("", "docs", "livez", "metrics", "outcomes/x", "nowhere", "docs.json", "asyncapi.json")
    for path in map("/{}".format, paths):
        with subtests.test(path=path):
            headers = get(worker.url + path)[1]
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["referrer-policy"] == "no-referrer"
            assert "frame-ancestors 'none'" in headers["content-security-policy"]
