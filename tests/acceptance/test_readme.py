"""Every command and snippet of README, tutorial and data layer, from nothing, on real servers."""

import ast
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.support.kafka_topics import admin_client
from tests.support.page_runner import PageRunner
from tests.support.pages import ROOT, blocks_of, read
from tests.support.promises import Scene
from tests.support.shop import Shop
from tests.support.topic_names import TopicNames
from tests.support.worker_process import workers_in
from tests.support.worker_template import WorkerTemplate
from worker.sandbox.servers.postgres import create_database, drop_database
from worker.sandbox.servers.services import Services


@pytest.fixture
def newcomer(
    services: Services,
    env: dict[str, str],
    topic_names: TopicNames,
    tmp_path: Path,
    worker_template: WorkerTemplate,
) -> Iterator[PageRunner]:
    """Somebody who has servers, and neither tables nor topics."""
    name = f"empty_{uuid4().hex[:12]}"
    env |= {"ORDER_WORKER_DATABASE_URL": create_database(services.database_url, name)}
    shop = Shop(env["ORDER_WORKER_DATABASE_URL"])
    scene = Scene(services.kafka_bootstrap_servers, shop, topic_names, env["ORDER_WORKER_GROUP_ID"])
    (tmp_path / "logs").mkdir()
    (tmp_path / "here").mkdir()
    with workers_in(env, tmp_path / "logs") as workers:
        yield PageRunner(scene, env, tmp_path / "here", workers, worker_template)
    drop_database(services.database_url, name)
    admin = admin_client(services.kafka_bootstrap_servers)
    for future in admin.delete_topics(list(vars(topic_names).values())).values():
        future.result(10)


@pytest.mark.takes_long
def test_the_readme_leads_from_nothing_to_outcomes(newcomer: PageRunner):
    newcomer.run("README.md")
    scene = newcomer.scene
    scene.wait_until_drained()
    ids = [row["order_id"] for row in scene.shop.sql("SELECT order_id FROM order_outcomes")]
    assert len(ids) == 1_001  # the random ones, and that of the snippet
    assert len(scene.confirmed()) >= 900, "the shop of the examples has enough in stock"
    assert scene.topics.order_confirmed in newcomer.subscribed
    assert scene.shop.value("SELECT count(*) FROM orders") == len(scene.confirmed()) + 1  # the shop's own


@pytest.mark.takes_long
def test_the_tutorial_makes_a_first_shop(newcomer: PageRunner):
    newcomer.run("docs/tutorial.md")
    scene = newcomer.scene
    scene.wait_until_drained()
    assert (len(scene.confirmed()), len(scene.rejected())) == (1_002, 1)
    assert "60,000" in newcomer.said
    assert "nothing is missing" in newcomer.said
    ids = [row["order_id"] for row in scene.shop.sql("SELECT order_id FROM order_outcomes")]
    scene.assert_promises(ids, dead_letters=1)


async def test_the_python_of_the_data_layers_guide_runs_as_it_stands(
    database_url: str, capsys: pytest.CaptureFixture[str]
):
    blocks = [block for block in blocks_of(read("docs/data-layer.md")) if block.language == "python"]
    assert len(blocks) == 7
    given = "postgresql://shop:shop@127.0.0.1:5432/shop"
    assert given in blocks[0].text
    names: dict[str, Any] = {}
    for block in blocks:
        text = "\n" * (block.line - 1) + block.text.replace(given, database_url)
        code = compile(text, "docs/data-layer.md", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        if (running := eval(code, names)) is not None:
            await running
    await names["engine"].dispose()
    assert "product 1: 9 requested, 1 available" in capsys.readouterr().out
    assert [item.name for item in names["cheapest"]] == ["Lamp"]


def test_servers_of_ones_own_say_where_they_are_and_end_at_ctrl_c(services: Services):
    addresses = {
        "ORDER_WORKER_KAFKA_BOOTSTRAP_SERVERS": services.kafka_bootstrap_servers,
        "ORDER_WORKER_DATABASE_URL": services.database_url,
    }
    process = subprocess.Popen(
        [sys.executable, "examples/servers.py"],
        cwd=ROOT,
        env={**os.environ, **addresses},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    said = [next(process.stdout) for _ in range(5)]
    process.send_signal(signal.SIGINT)
    assert [line.strip() for line in said if line.startswith("export ")] == [
        f"export {name}={value}" for name, value in addresses.items()
    ]
    assert process.communicate(timeout=30)[0] == "The servers are gone.\n"
    assert process.returncode == 0
