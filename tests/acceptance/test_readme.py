"""The README's "Run it", command by command, through the installed script, from nothing."""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from db.migrate import head_revision
from tests.support.order_worker import OrderWorker
from tests.support.promises import Scene
from tests.support.shop import Shop
from tests.support.subscriber import admin_client
from tests.support.topic_names import TopicNames
from tests.support.worker_process import ROOT, workers_in
from worker.sandbox.servers.postgres import create_database, drop_database
from worker.sandbox.servers.services import Services

ORDER_WORKER = str(Path(sys.executable).with_name("order-worker"))


@pytest.fixture
def empty(services: Services, env: dict[str, str], topic_names: TopicNames) -> Iterator[dict[str, str]]:
    """An environment without tables and topics."""
    name = f"empty_{uuid4().hex[:12]}"
    yield env | {"ORDER_WORKER_DATABASE_URL": create_database(services.database_url, name)}
    drop_database(services.database_url, name)
    admin = admin_client(services.kafka_bootstrap_servers)
    for future in admin.delete_topics(list(vars(topic_names).values())).values():
        future.result(10)


def test_a_newcomer_gets_from_nothing_to_outcomes(
    empty: dict[str, str], topic_names: TopicNames, tmp_path: Path
):
    def order_worker(*arguments: str) -> str:
        result = OrderWorker(empty, program=(ORDER_WORKER,))(*arguments)
        assert result.code == 0, result
        return result.out + result.err

    assert head_revision() in order_worker("db", "upgrade")
    assert topic_names.dead_letter in order_worker("topics", "create")
    assert "products" in order_worker("catalog", "import", "examples/catalog")
    shop = Shop(empty["ORDER_WORKER_DATABASE_URL"])
    scene = Scene(
        empty["ORDER_WORKER_KAFKA_BOOTSTRAP_SERVERS"], shop, topic_names, empty["ORDER_WORKER_GROUP_ID"]
    )
    with workers_in(empty, tmp_path) as workers:
        worker = workers.start(ORDER_WORKER, "run").wait_until_ready()
        assert "1,000 placed" in order_worker("place", "--random", "1000")
        scene.wait_until_drained()
        assert worker.stop() == 0
    ids = [row["order_id"] for row in shop.sql("SELECT order_id FROM order_outcomes")]
    assert len(ids) == 1_000
    assert len(scene.confirmed()) >= 900, "the shop of the examples has enough in stock"
    scene.assert_promises(ids)


async def test_the_python_of_the_readme_runs_as_it_stands(
    database_url: str, capsys: pytest.CaptureFixture[str]
):
    section = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Use the data layer")[2]
    blocks = re.findall(r"^```python\n(.*?)^```", section.partition("\n## ")[0], re.DOTALL | re.MULTILINE)
    assert len(blocks) == 7
    given = "postgresql://shop:shop@127.0.0.1:5432/shop"
    assert given in blocks[0]
    names: dict[str, Any] = {}
    for block in blocks:
        code = compile(
            block.replace(given, database_url), "README.md", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        )
        if (running := eval(code, names)) is not None:
            await running
    await names["engine"].dispose()
    assert "product 1: 9 requested, 1 available" in capsys.readouterr().out
    assert [item.name for item in names["cheapest"]] == ["Lamp"]
