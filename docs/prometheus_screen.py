"""Takes `prometheus.png`: panels of the dashboard, drawn by Prometheus itself, of two workers under a load.

`python -m docs.prometheus_screen`, three minutes; needs what `make browser prometheus` installs.
"""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import urlencode

from docs.screens import FOLDER, Camera, upgrade
from tests.support.browser import find_browser
from tests.support.prometheus import prometheus_of
from tests.support.shop import Shop
from tests.support.worker_process import ROOT, workers_in
from worker.sandbox.servers.ports import free_port
from worker.sandbox.servers.postgres import create_database
from worker.sandbox.servers.services import running_services

DASHBOARD: Final = ROOT / "deploy" / "grafana" / "dashboards" / "order-worker.json"
PANELS: Final = ("Orders by outcome", "Latency", "Lag by partition", "Where a batch's time goes")
SIZE: Final = "1200,3180"  # pixels, of which each graph takes some 750


def main() -> None:
    browser = find_browser()
    if not browser:
        sys.exit("no Chromium: run `make browser` (as root)")
    with running_services(report=print) as services, tempfile.TemporaryDirectory() as name:
        database_url, folder = create_database(services.database_url, "screen"), Path(name)
        env = {
            "ORDER_WORKER_KAFKA_BOOTSTRAP_SERVERS": services.kafka_bootstrap_servers,
            "ORDER_WORKER_DATABASE_URL": database_url,
            "ORDER_WORKER_HTTP_HOST": "127.0.0.1",
        }
        camera = Camera(env)
        asyncio.run(upgrade(database_url))
        camera.run("topics", "create")
        # So little of three products that their orders are rejected after a while.
        Shop(database_url).stock_up({i: 4_000 if i <= 3 else 500_000 for i in range(1, 21)}, users=50)
        ports = [free_port() for _ in range(2)]
        with workers_in(env, folder) as workers, prometheus_of([f"127.0.0.1:{p}" for p in ports]) as shown:
            _, second = (workers.start(http_port=str(port)).wait_until_ready() for port in ports)
            with _placing(env, 60_000, rate=400):
                time.sleep(60)  # a picture of a minute at work,
                second.kill()  # then of orders that wait for a session timeout,
                time.sleep(30)
                workers.start(http_port=str(ports[1])).wait_until_ready()
                time.sleep(60)  # and of a worker that is there again
            picture = FOLDER / "prometheus.png"
            _take(browser, folder, shown.url + "/graph?" + urlencode(_graphs()), picture)
            print(picture.name)


@contextmanager
def _placing(env: dict[str, str], orders: int, *, rate: int) -> Iterator[None]:
    command = [sys.executable, "-m", "worker", "place", "--random", str(orders), "--rate", str(rate)]
    placing = subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, **env}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield
    finally:
        placing.terminate()
        placing.wait()


def _graphs() -> dict[str, str]:
    panels = {panel["title"]: panel for panel in json.loads(DASHBOARD.read_text())["panels"]}
    graphs: dict[str, str] = {}
    for number, title in enumerate(PANELS):
        targets = panels[title]["targets"]
        named = [
            # All of a panel in one graph, each by its name in the legend.
            target["expr"]
            if "{{" in target["legendFormat"]
            else f'label_replace({target["expr"]}, "shown", "{target["legendFormat"]}", "", "")'
            for target in targets
        ]
        query = " or ".join(named).replace("$job", "order-worker").replace("$__rate_interval", "10s")
        graphs |= {f"g{number}.expr": query, f"g{number}.tab": "0", f"g{number}.range_input": "150s"}
    return graphs


def _take(browser: str, folder: Path, url: str, picture: Path) -> None:
    subprocess.run(
        [
            *(
                browser,
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                f"--user-data-dir={folder / 'browser'}",
            ),
            *(f"--window-size={SIZE}", "--hide-scrollbars", "--virtual-time-budget=10000"),
            *(f"--screenshot={picture}", url),
        ],
        capture_output=True,
        timeout=120,
        check=True,
    )


if __name__ == "__main__":
    main()
