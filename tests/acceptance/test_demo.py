"""`order-worker demo` as called by somebody who has servers: it proves its point and leaves nothing."""

import os
import re
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.support.deadline import eventually
from tests.support.kafka_topics import admin_client
from tests.support.shop import Shop
from worker.sandbox.servers.services import Services

ROOT = Path(__file__).parents[2]


class Demo:
    """A running `order-worker demo` and what it has printed."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process
        self.text = ""
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self.text += line

    def wait_for(self, text: str, seconds: float = 40) -> None:
        eventually(lambda: text in self.text or self.process.poll() is not None, seconds, lambda: self.text)
        assert text in self.text, self.text

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def wait(self, seconds: float = 40) -> int:
        code = self.process.wait(seconds)
        self._reader.join()
        return code


@contextmanager
def started(environment: dict[str, str], *arguments: str) -> Iterator[Demo]:
    process = subprocess.Popen(
        [sys.executable, "-m", "worker", "demo", *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
    )
    demo = Demo(process)
    try:
        yield demo
    finally:
        if process.poll() is None:
            # Its workers and servers die with it.
            process.kill()
        demo.wait()
        assert process.stdout
        process.stdout.close()


@pytest.fixture
def environment(services: Services, database_url: str, tmp_path: Path) -> dict[str, str]:
    return {
        "ORDER_WORKER_KAFKA_BOOTSTRAP_SERVERS": services.kafka_bootstrap_servers,
        "ORDER_WORKER_DATABASE_URL": database_url,
        "ORDER_WORKER_SESSION_TIMEOUT_MS": "3000",
        "ORDER_WORKER_DEMO_SECONDS": "6",
        "TMPDIR": str(tmp_path),
        "COLUMNS": "120",
    }


@pytest.fixture
def leaves_nothing(services: Services, shop: Shop, tmp_path: Path) -> Iterator[None]:
    """Topics, schemas and temporary files afterwards are those from before."""

    def topics() -> set[str]:
        admin = admin_client(services.kafka_bootstrap_servers)
        return {name for name in admin.list_topics(timeout=10).topics if "-demo-" in name}

    def schemas() -> list[str]:
        return [
            row["nspname"] for row in shop.sql("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'demo%'")
        ]

    before = topics()
    yield
    eventually(lambda: topics() <= before, 10, lambda: str(topics()))
    assert schemas() == []
    assert list(tmp_path.iterdir()) == []
    assert shop.sql("SELECT count(*) AS n FROM orders")[0]["n"] == 0, "what is there is not touched"


@pytest.mark.takes_long
def test_proves_its_point_and_leaves_nothing(environment: dict[str, str], leaves_nothing: None):
    with started(environment) as demo:
        assert demo.wait(90) == 0, demo.text
    text = demo.text
    assert "All 8 checks hold" in text
    assert re.search(r"orders placed +1,798 +48,842 lines", text)
    assert re.search(
        r"Every record has one fate +1,915 = 1,798 decided \+ 72 duplicates \+ 45 dead letters", text
    )
    assert "1,798 seen, read_committed, byte for byte as in the ledger" in text
    assert "received − sold = stock for 2,840 of 2,840 products" in text
    assert re.search(r"384 +cancellations, of 923 lines", text)
    assert re.search(r"297 +lines without a price", text)
    assert re.search(r"worker \d killed with SIGKILL; it held partitions", text)
    assert re.search(r"worker \d is back with partitions", text)
    assert re.search(r"the whole run +1,798 +\d+", text)
    assert "insufficient_stock" in text
    assert "order_id_conflict 5" in text
    assert "\x1b" not in text, "no colours and no live screen where there is no terminal"


def test_ctrl_c_on_the_way_leaves_nothing_running(environment: dict[str, str], leaves_nothing: None):
    with started(environment | {"ORDER_WORKER_DEMO_SECONDS": "60"}) as demo:
        demo.wait_for("s  placed 0 of 1,798 orders")
        children = demo.children()
        assert len(children) == 2
        demo.process.send_signal(signal.SIGINT)
        # An impatient user: the second signal must not disturb the clean-up.
        demo.process.send_signal(signal.SIGTERM)
        assert demo.wait() == 128 + signal.SIGINT
    assert demo.text.splitlines()[-1].startswith("Stopped: ")
    assert "Traceback" not in demo.text
    assert not [child for child in children if child.is_running()]


@pytest.mark.takes_long
def test_keep_leaves_everything_up_until_ctrl_c(environment: dict[str, str], leaves_nothing: None):
    with started(environment | {"ORDER_WORKER_DEMO_SECONDS": "3"}, "--keep") as demo:
        demo.wait_for("Ctrl-C stops it all")
        urls = re.findall(r"http://\S+/readyz", demo.text)
        assert len(urls) == 2
        for url in urls:
            with urllib.request.urlopen(url, timeout=5) as answer:
                assert answer.status == 200
        exports = dict(re.findall(r"^export (\w+)=(\S+)$", demo.text, re.MULTILINE))
        assert len(exports) == 6, "group, schema and four topics"
        env = {**os.environ, **environment, **exports}
        place = [sys.executable, "-m", "worker", "place", "--random", "10"]
        placed = subprocess.run(place, cwd=ROOT, env=env, capture_output=True, text=True, timeout=30)
        assert placed.stdout.startswith("10 placed"), placed.stderr
        assert environment["ORDER_WORKER_DATABASE_URL"] not in demo.text, "it may hold a password"
        demo.process.send_signal(signal.SIGINT)
        assert demo.wait() == 0, demo.text


def test_a_server_that_is_away_is_one_line(environment: dict[str, str], leaves_nothing: None):
    with started(environment | {"ORDER_WORKER_KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"}) as demo:
        assert demo.wait() == 1
    assert demo.text.splitlines()[-1].startswith("error: cannot reach Kafka at 127.0.0.1:1")
    assert "Traceback" not in demo.text


def test_one_url_of_two_is_an_error_that_says_so(environment: dict[str, str]):
    with started(environment | {"ORDER_WORKER_DATABASE_URL": ""}) as demo:
        assert demo.wait() == 1
    assert "ORDER_WORKER_KAFKA_BOOTSTRAP_SERVERS is set and ORDER_WORKER_DATABASE_URL is not" in demo.text
