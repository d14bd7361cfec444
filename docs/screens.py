"""Takes the pictures of the commands in this folder, from a real run: `make screens`.

`python -m docs.screens demo` takes that of the demo alone, in a minute.

Servers, tables, topics and workers are real and of its own; nothing is drawn by hand.
"""

import asyncio
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID, uuid4

from rich.console import Console
from rich.text import Text

from db import migrate
from db.engine import create_engine
from tests.support.builders import line, order_value
from tests.support.deadline import eventually
from tests.support.promises import Scene
from tests.support.shop import Shop
from tests.support.topic_names import PARTITIONS, TopicNames
from tests.support.worker_process import ROOT, Workers, workers_in
from worker.sandbox.servers.postgres import create_database
from worker.sandbox.servers.services import running_services

FOLDER = Path(__file__).parent
COLUMNS = 100
TERMINAL = {"FORCE_COLOR": "1", "COLUMNS": str(COLUMNS), "TERM": "xterm-256color"}
TOPICS = TopicNames("order-placed", "order-confirmed", "order-rejected", "order-placed-dlt")


@dataclass(frozen=True)
class Camera:
    """Runs commands as on a terminal of `COLUMNS` columns, and keeps what they show."""

    env: Mapping[str, str]

    def take(self, name: str, *arguments: str, stdin: bytes = b"", title: str = "") -> str:
        """Save the screen of a command as `name`.svg; returns its text."""
        shown = self.run(*arguments, stdin=stdin)
        return self.save(name, shown, title or f"order-worker {' '.join(arguments)}")

    def save(self, name: str, shown: str, title: str) -> str:
        """Save what was shown as `name`.svg; returns it without colours."""
        console = Console(record=True, width=COLUMNS, file=open(os.devnull, "w"), highlight=False)  # noqa: SIM115
        text = Text.from_ansi(shown.rstrip())
        text.rstrip()
        console.print(text)
        svg = console.export_svg(title=title, unique_id=name)
        # Fonts of the reader's own: nothing is fetched from elsewhere.
        svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)
        (FOLDER / f"{name}.svg").write_text(svg, encoding="utf-8")
        print(f"{name}.svg  {title}")
        return text.plain

    def run(self, *arguments: str, stdin: bytes = b"") -> str:
        """What it shows in the end, colours included: a bar is gone by then."""
        done = subprocess.run(
            [sys.executable, "-m", "worker", *arguments],
            cwd=ROOT,
            env={
                **os.environ,
                **self.env,
                "FORCE_COLOR": "1",
                "COLUMNS": str(COLUMNS),
                "TERM": "xterm-256color",
            },
            input=stdin,
            capture_output=True,
            timeout=300,
        )
        errors = [text for text in done.stderr.decode().splitlines() if text.startswith("error: ")]
        return "\n".join([done.stdout.decode().rstrip(), *errors])


def main() -> None:
    if sys.argv[1:] == ["demo"]:
        _demo(Camera({}))
        return
    with running_services(report=print) as services, tempfile.TemporaryDirectory() as folder:
        database_url = create_database(services.database_url, "screens")
        env = {
            "ORDER_WORKER_KAFKA_BOOTSTRAP_SERVERS": services.kafka_bootstrap_servers,
            "ORDER_WORKER_DATABASE_URL": database_url,
            "ORDER_WORKER_HTTP_PORT": "0",
            "ORDER_WORKER_HTTP_HOST": "127.0.0.1",
        }
        camera, shop = Camera(env), Shop(database_url)
        scene = Scene(services.kafka_bootstrap_servers, shop, TOPICS, "order-worker")
        asyncio.run(upgrade(database_url))
        camera.run("topics", "create")
        shop.stock_up({i: 150 if i <= 3 else 50_000 for i in range(1, 21)}, users=50)
        with workers_in(env, Path(folder)) as workers:
            _day_of_business(camera, scene, workers)
        _demo(camera)


def _demo(camera: Camera) -> None:
    """Its report alone: what is drawn while it runs is no picture."""
    lines = camera.run("demo").splitlines()
    first, last = (
        next(number for number, line in enumerate(lines) if title in line)
        for title in ("What happened", "Where to look next")
    )
    camera.save("demo", "\n".join(lines[first:last]), "make demo")


async def upgrade(database_url: str) -> None:
    engine = create_engine(database_url)
    await migrate.upgrade(engine, "public")
    await engine.dispose()


def _day_of_business(camera: Camera, scene: Scene, workers: Workers) -> None:
    crew = [workers.start().wait_until_ready() for _ in range(2)]
    camera.run("place", "--random", "2000", "--duplicates", "0.02", "--seed", "1")
    _place_poison(scene)
    scene.wait_until_drained()

    placing = subprocess.Popen(
        [sys.executable, "-m", "worker", "place", "--random", "12000", "--rate", "1500", "--seed", "2"],
        cwd=ROOT,
        env={**os.environ, **camera.env},
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    eventually(lambda: _decided(scene) > 2_600)
    camera.take("lag", "lag")
    placing.wait(60)
    scene.wait_until_drained()

    rejected = scene.shop.value("SELECT order_id FROM order_outcomes WHERE outcome = 'rejected' LIMIT 1")
    camera.take("explain", "explain", str(rejected))
    camera.take(
        "check", "check", "-", stdin=b"\n".join(_a_file()) + b"\n", title="order-worker check orders.jsonl"
    )
    camera.take("dead-letters-list", "dead-letters", "list")
    place = camera.run("dead-letters", "list", "--json", "--path", "items.0.quantity")
    sample = re.search(r'"sample":\s*"([\d:]+)"', place)
    camera.take("dead-letters-show", "dead-letters", "show", sample[1] if sample else "0:0")
    fix = ("--path", "items.0.quantity", "--set", "items.0.quantity=2")
    camera.take("dead-letters-redrive", "dead-letters", "redrive", *fix)
    camera.take("dead-letters-redriven", "dead-letters", "redrive", *fix, "--execute")
    camera.take("republish", "republish", "--outcome", "rejected", "--rate", "500")

    for partition in range(PARTITIONS):
        # Behind the marks of the redrive's transactions, which count as lag until a record follows them.
        scene.place([order_value(line(12))], partition=partition)
    scene.wait_until_drained()
    camera.take("reconcile", "reconcile")
    scene.shop.sql("UPDATE products SET stock_quantity = stock_quantity - 1 WHERE id = 7")
    camera.take("reconcile-discrepancy", "reconcile")
    scene.shop.sql("UPDATE products SET stock_quantity = stock_quantity + 1 WHERE id = 7")

    for worker in crew:
        worker.stop()
    _forget_some(scene)
    camera.take("replay", "replay", "--to-earliest")
    camera.take("replayed", "replay", "--to-earliest", "--execute")


def _decided(scene: Scene) -> int:
    return int(scene.shop.value("SELECT count(*) FROM order_outcomes"))


def _place_poison(scene: Scene) -> None:
    first = uuid4()
    scene.place([order_value(line(5), order_id=first), order_value(line(5, 2), order_id=first)], partition=0)
    scene.place([order_value(line(6, 0)) for _ in range(12)])
    scene.place([b"not json", b"{}", b'{"order_id": 7}', None])


def _a_file() -> list[bytes]:
    return [
        *(order_value(line(n), order_id=UUID(int=n, version=4)) for n in range(4, 12)),
        order_value(line(99)),
        order_value(line(8, 0)),
        order_value(line(9, 1, "9.99")),
        order_value(line(10), user_id=4_711),
    ]


def _forget_some(scene: Scene) -> None:
    """As if a hundred orders had never been decided: what a restored backup leaves behind."""
    scene.shop.sql(
        "WITH gone AS (DELETE FROM order_outcomes"
        " WHERE order_id IN (SELECT id FROM orders ORDER BY id LIMIT 100) RETURNING order_id),"
        " back AS (SELECT product_id, sum(quantity) AS quantity FROM order_items"
        " WHERE order_id IN (SELECT order_id FROM gone) GROUP BY product_id),"
        " stock AS (UPDATE products SET stock_quantity = stock_quantity + back.quantity"
        " FROM back WHERE id = back.product_id)"
        " DELETE FROM orders WHERE id IN (SELECT order_id FROM gone)"
    )


if __name__ == "__main__":
    main()
