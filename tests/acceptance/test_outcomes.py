"""`GET /outcomes/{order_id}`: what was decided, asked of a running worker."""

import asyncio
import json
import urllib.error
import urllib.request
from collections import Counter
from email.message import Message as Headers
from urllib.parse import urlsplit
from uuid import uuid4

from tests.support.builders import line, order_value
from tests.support.deadline import eventually
from tests.support.promises import Scene
from tests.support.shop import Shop, run_apart
from tests.support.worker_process import WorkerProcess, Workers
from worker.http.queries import MAX_ASKING, MAX_CONNECTIONS
from worker.sandbox.servers.services import Services


def ask(worker: WorkerProcess, order_id: object, method: str = "GET") -> tuple[int, Headers, bytes]:
    request = urllib.request.Request(f"{worker.url}/outcomes/{order_id}", method=method)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


def error_of(answer: tuple[int, Headers, bytes]) -> tuple[int, dict[str, str]]:
    status, headers, body = answer
    assert headers["content-type"] == "application/json"
    return status, json.loads(body)


def test_shows_the_stored_event_of_a_decided_order_and_why_not_of_any_other(scene: Scene, workers: Workers):
    scene.shop.stock_up({1: 5})
    confirmed, rejected, undecided = uuid4(), uuid4(), uuid4()
    scene.place([order_value(line(1, 5), order_id=confirmed)], partition=0)
    worker = workers.start()
    scene.wait_until_drained()
    scene.place([order_value(line(1, 1), order_id=rejected)], partition=0)
    scene.wait_until_drained()
    visible = {m.header("ce_subject"): m for m in scene.outcomes()}

    for order_id, outcome in ((confirmed, "confirmed"), (rejected, "rejected")):
        status, headers, body = ask(worker, order_id)
        assert status == 200
        published = visible[str(order_id)]
        assert body == published.value
        assert headers["content-type"] == "application/json"
        assert headers["etag"] == f'"{published.header("ce_id")}"'
        assert headers["ce-type"] == f"order-{outcome}"
        assert headers["ce-time"] == published.header("ce_time")
    assert ask(worker, str(confirmed).upper())[0] == 200
    status, headers, body = ask(worker, confirmed, "HEAD")
    assert (status, body) == (200, b"")

    assert error_of(ask(worker, undecided)) == (404, {"order_id": str(undecided), "error": "undecided"})
    for odd in ("7", "x%20%27%00", f"{{{confirmed}}}", str(confirmed).replace("-", "")):
        status, answer = error_of(ask(worker, odd))
        assert (status, answer["error"]) == (400, "not an order id: write a UUID of 36 characters")
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        answered = ask(worker, confirmed, method)
        assert error_of(answered)[0] == 405
        assert answered[1]["allow"] == "GET, HEAD"
    for path in ("/outcomes", "/outcomes/", f"/outcomes/{confirmed}/", f"/x/outcomes/{confirmed}"):
        assert worker.get(path)[0] == 404
    assert worker.stop() == 0


def test_says_that_the_database_is_away_and_answers_again_after_that(
    scene: Scene, workers: Workers, services: Services
):
    worker = workers.start().wait_until_ready()
    order_id = uuid4()
    assert ask(worker, order_id)[0] == 404

    database, elsewhere = scene.shop.value("SELECT current_database()"), Shop(services.database_url)
    elsewhere.sql(f'ALTER DATABASE "{database}" ALLOW_CONNECTIONS false')
    elsewhere.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", database)
    try:
        status, answer = error_of(ask(worker, order_id))
        assert (status, answer["order_id"]) == (503, str(order_id))
        assert answer["error"].startswith("the database gives no answer: ")
        assert "password" not in answer["error"]
    finally:
        elsewhere.sql(f'ALTER DATABASE "{database}" ALLOW_CONNECTIONS true')
    eventually(lambda: ask(worker, order_id)[0] == 404)


def test_a_flood_takes_few_connections_and_does_not_keep_the_worker_from_deciding(
    scene: Scene, workers: Workers
):
    scene.shop.stock_up({1: 10_000})
    worker = workers.start().wait_until_ready()
    known = uuid4()
    scene.place([order_value(line(1, 1), order_id=known)])
    scene.wait_until_drained()
    ids = [known, *(uuid4() for _ in range(500))]
    scene.place([order_value(line(1, 1), order_id=i) for i in ids[1:]])
    port = urlsplit(worker.url).port
    request = f"GET /outcomes/{known} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode()

    async def one() -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request)
        answer = await reader.read()
        writer.close()
        return answer.split(b" ", 2)[1]

    async def flood() -> Counter[bytes]:
        return Counter(await asyncio.gather(*(one() for _ in range(3 * MAX_ASKING))))

    answers = run_apart(flood())
    assert set(answers) <= {b"200", b"503"}, answers
    assert answers[b"200"]
    # On a busy machine the last answers of the flood were late, and what is late takes its connection along.
    eventually(lambda: ask(worker, known)[0] == 200)
    taken = scene.shop.value("SELECT count(*) FROM pg_stat_activity WHERE application_name = $1", HTTP)
    assert 1 <= taken <= MAX_CONNECTIONS
    scene.wait_until_drained()
    scene.assert_promises(ids)
    assert ask(worker, known)[0] == 200


HTTP = "order-worker http"
