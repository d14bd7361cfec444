"""The commands that set a shop up and feed it, as an operator calls them."""

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from contracts.events import OrderPlaced
from tests.support.builders import line, order_value
from tests.support.deadline import eventually
from tests.support.order_worker import ROOT, OrderWorker, command_names, ended
from tests.support.publishing import publish
from tests.support.shop import Shop
from tests.support.subscriber import read_topic
from tests.support.topic_changes import set_option
from tests.support.topic_names import TopicNames
from worker.sandbox.servers.services import Services


def write_catalog(folder: Path, products: int = 20) -> Path:
    rows = "\n".join(f"{i},Product {i},,2.50,100,1" for i in range(1, products + 1))
    (folder / "users.csv").write_text("id,email,full_name\n1,a@example.org,Ann\n2,b@example.org,Bob\n")
    (folder / "categories.csv").write_text("id,name,description\n1,All,\n")
    (folder / "products.csv").write_text(
        f"id,name,description,price,stock_quantity,category_id\n{rows}\n", encoding="utf-8"
    )
    return folder


def values_in(services: Services, topic: str) -> list[bytes]:
    return [message.value or b"" for message in read_topic(services.kafka_bootstrap_servers, topic)]


class TestHelp:
    def test_every_command_has_help_with_an_example(self) -> None:
        order_worker = OrderWorker({})
        for command in command_names():
            said = order_worker.here(*command.split(), "--help").done().out
            assert f"order-worker {command}" in said.split("Example")[1]
        assert order_worker("place", "--help").done() == order_worker.here("place", "--help")

    def test_help_loads_neither_kafka_nor_sqlalchemy(self) -> None:
        program = (
            "import sys, worker.cli; "
            "sys.exit(bool({'aiokafka', 'sqlalchemy', 'faststream', 'pydantic'} & set(sys.modules)))"
        )
        assert subprocess.run([sys.executable, "-c", program], cwd=ROOT).returncode == 0

    @pytest.mark.parametrize(
        "arguments",
        [
            ["nonsense"],
            ["place"],
            ["place", "a.jsonl", "--random", "3"],
            ["place", "no-such-file.jsonl"],
            ["place", "--random", "0"],
            ["topics", "create", "--partitions", "0"],
            ["topics", "create", "--replication", "0"],
        ],
    )
    def test_wrong_usage_exits_2(self, arguments: list[str]) -> None:
        result = OrderWorker({}).here(*arguments)
        assert result.code == 2
        assert "Traceback" not in result.err


class TestDatabase:
    def test_upgrade_says_from_where_to_where(
        self, order_worker: OrderWorker, bare_database_url: str, tmp_path: Path
    ) -> None:
        env: dict[str, Any] = {"ORDER_WORKER_DATABASE_URL": bare_database_url}
        write_catalog(tmp_path)
        refused = order_worker("catalog", "import", str(tmp_path), **env)
        refused.assert_one_line(1, "run `order-worker db upgrade`")
        assert "upgraded from nothing to revision" in order_worker("db", "upgrade", **env).out
        assert "already" in order_worker("db", "upgrade", **env).out
        assert order_worker("catalog", "import", str(tmp_path), **env).code == 0

    @pytest.mark.parametrize(
        ("url", "expected"),
        [
            ("postgresql://postgres:s3cret@127.0.0.1:1/x", "cannot reach PostgreSQL at 127.0.0.1:1/x"),
            ("postgresql://postgres:s3/cret@127.0.0.1:1/x", "ORDER_WORKER_DATABASE_URL cannot be read"),
            ("postgresql://postgres:s3#cret@127.0.0.1:1/x", "ORDER_WORKER_DATABASE_URL"),
            ("postgresql://postgres:s3[cret@127.0.0.1:1/x", "ORDER_WORKER_DATABASE_URL"),
            ("mysql://postgres:s3cret@127.0.0.1:1/x", "ORDER_WORKER_DATABASE_URL cannot be read"),
        ],
    )
    def test_an_unusable_database_is_one_line_without_the_password(
        self, lone_order_worker: OrderWorker, url: str, expected: str
    ) -> None:
        result = lone_order_worker("db", "upgrade", ORDER_WORKER_DATABASE_URL=url)
        result.assert_one_line(1, expected)
        assert not [piece for piece in ("s3", "cret") if piece in result.err]

    def test_an_unknown_database_is_named(self, services: Services, order_worker: OrderWorker) -> None:
        url = services.database_url.rpartition("/")[0] + "/no_such_database"
        result = order_worker("db", "upgrade", ORDER_WORKER_DATABASE_URL=url)
        assert result.code == 1
        assert 'database "no_such_database" does not exist' in result.err


class TestTopics:
    def test_creates_the_four_and_leaves_them_alone_after_that(
        self, order_worker: OrderWorker, topic_names: Any
    ) -> None:
        first = order_worker("topics", "create", "--partitions", "2")
        assert first.code == 0, first.err
        lines = first.out.splitlines()
        assert [text.split()[:3] for text in lines[1:]] == [
            [name, "created", "2"]
            for name in (
                topic_names.order_placed,
                topic_names.order_confirmed,
                topic_names.order_rejected,
                topic_names.dead_letter,
            )
        ]
        assert len({len(text) for text in lines}) == 1, "the columns align"
        assert "2048 KiB" in lines[4]
        assert "30 days" in lines[4]
        again = order_worker("topics", "create", "--partitions", "3")
        assert again.code == 0
        assert again.out.count("exists") == 4
        assert again.out.count("has 2 partitions, not 3") == 4

    def test_what_it_says_of_topics_that_are_new_is_what_was_asked_for(
        self, order_worker: OrderWorker, topic_names: TopicNames
    ) -> None:
        for attempt in range(5):
            names = {
                f"ORDER_WORKER_{variable}_TOPIC": f"{name}-{attempt}"
                for variable, name in zip(
                    ("ORDER_PLACED", "ORDER_CONFIRMED", "ORDER_REJECTED", "DEAD_LETTER"),
                    vars(topic_names).values(),
                    strict=True,
                )
            }
            said = order_worker.here("topics", "create", **names).done().out.splitlines()
            known = [["created", "4", "1", days, "days"] for days in ("14", "14", "14", "30")]
            assert [row.split()[1:6] for row in said[1:]] == known, "asked before brokers know of them"

    def test_the_broker_stamps_what_is_created_whatever_time_a_record_claims(
        self, services: Services, order_worker: OrderWorker, topic_names: Any
    ) -> None:
        assert order_worker("topics", "create", "--partitions", "1").code == 0
        publish(services.kafka_bootstrap_servers, topic_names.dead_letter, [b"x"], timestamp_ms=1)
        (message,) = read_topic(services.kafka_bootstrap_servers, topic_names.dead_letter)
        assert time.time() * 1_000 - message.timestamp < 60_000

    def test_settings_that_will_hurt_are_remarked_with_the_remedy(
        self, services: Services, order_worker: OrderWorker, topics: TopicNames
    ) -> None:
        kafka = services.kafka_bootstrap_servers
        set_option(kafka, topics.order_confirmed, "max.message.bytes", "20000")
        set_option(kafka, topics.order_rejected, "message.timestamp.before.max.ms", "60000")
        set_option(kafka, topics.dead_letter, "cleanup.policy", "compact")
        set_option(kafka, topics.order_placed, "retention.ms", "3600000")
        remarks = order_worker("topics", "create").out.splitlines()[5:]
        assert [remark.split(":")[0] for remark in remarks] == [
            topics.order_placed,
            topics.order_confirmed,
            topics.order_rejected,
            topics.dead_letter,
        ]
        assert remarks[0].endswith(
            "retention.ms=3600000 deletes records after 1.0 hours: set it to 86400000 or more"
        )
        assert remarks[1].endswith(
            "max.message.bytes=20000 is too small for an outcome of 1,000 items: it should be 262144 or more"
        )
        assert remarks[2].endswith("set message.timestamp.type=LogAppendTime")
        assert remarks[3].endswith("set cleanup.policy=delete")

    def test_kafka_away_is_one_line(self, lone_order_worker: OrderWorker) -> None:
        result = lone_order_worker("topics", "create", ORDER_WORKER_KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1")
        assert (result.code, result.err.count("\n")) == (1, 1)
        assert result.err.startswith("error: cannot reach Kafka at 127.0.0.1:1 (connection refused)")

    def test_more_copies_than_brokers_is_one_line(self, order_worker: OrderWorker) -> None:
        result = order_worker("topics", "create", "--replication", "99")
        result.assert_one_line(1, "Kafka refused to create")


class TestPlace:
    def test_places_a_file_byte_for_byte(
        self, services: Services, order_worker: OrderWorker, topics: Any, tmp_path: Path
    ) -> None:
        values = [order_value(line(i, i), extra=" ü ") for i in range(1, 4)]
        path = tmp_path / "orders.jsonl"
        path.write_bytes(b"\r\n".join([*values[:2], b"", values[2]]))
        result = order_worker("place", str(path))
        assert result.code == 0, result.err
        assert result.out.startswith("3 placed in ")
        assert Counter(values_in(services, topics.order_placed)) == Counter(values)

    def test_the_key_is_the_order_id(
        self, services: Services, order_worker: OrderWorker, topics: Any
    ) -> None:
        value = order_value(order_id=uuid4())
        assert order_worker("place", "-", stdin=value).code == 0
        message = read_topic(services.kafka_bootstrap_servers, topics.order_placed)[0]
        assert message.key == json.loads(value)["order_id"].encode()

    def test_sends_nothing_of_a_file_with_a_bad_line(
        self, services: Services, order_worker: OrderWorker, topics: Any, tmp_path: Path
    ) -> None:
        path = tmp_path / "orders.jsonl"
        path.write_bytes(b"\n".join([order_value(), b"", order_value(line(1, -1)), order_value()]))
        result = order_worker("place", str(path))
        assert (result.code, result.err.count("\n")) == (1, 1)
        assert result.err.startswith(f"error: {path}:3: items.0.quantity: ")
        assert values_in(services, topics.order_placed) == []

    def test_a_bad_line_on_standard_input_is_named_too(
        self, services: Services, order_worker: OrderWorker, topics: Any
    ) -> None:
        result = order_worker("place", "-", stdin=order_value() + b"\n{")
        assert result.err.startswith("error: standard input:2: ")
        assert values_in(services, topics.order_placed) == []

    def test_an_empty_file_is_an_error(self, order_worker: OrderWorker, topics: Any) -> None:
        result = order_worker("place", "-", stdin=b"\n\n")
        assert (result.code, result.err) == (1, "error: standard input holds no orders\n")

    def test_random_orders_come_from_the_catalogue(
        self, services: Services, order_worker: OrderWorker, topics: Any, tmp_path: Path
    ) -> None:
        order_worker("catalog", "import", str(write_catalog(tmp_path, products=3)))
        result = order_worker("place", "--random", "200", "--duplicates", "0.5", "--seed", "1")
        assert result.code == 0, result.err
        orders = [
            OrderPlaced.model_validate_json(value) for value in values_in(services, topics.order_placed)
        ]
        repeated = Counter(order.order_id for order in orders)
        assert len(repeated) == 200
        assert max(repeated.values()) == 2
        assert f", {len(orders) - 200} duplicates" in result.out
        assert {order.user_id for order in orders} == {1, 2}
        assert {item.product_id for order in orders for item in order.items} == {1, 2, 3}

    def test_keeps_the_rate(self, order_worker: OrderWorker, topics: Any, shop: Shop) -> None:
        shop.stock_up({1: 10})
        result = order_worker("place", "--random", "60", "--rate", "50")
        seconds = float(result.out.split(" placed in ")[1].split()[0])
        assert 1.1 <= seconds < 5

    def test_an_empty_catalogue_is_one_line(self, order_worker: OrderWorker, topics: Any) -> None:
        result = order_worker("place", "--random", "3")
        result.assert_one_line(1, "the catalogue has no users and no products")

    def test_a_missing_topic_is_named_and_not_created(
        self, order_worker: OrderWorker, topic_names: Any, shop: Shop
    ) -> None:
        shop.stock_up({1: 10})
        for _ in range(2):
            result = order_worker("place", "--random", "3")
            lacking = f"lacks the topic {topic_names.order_placed}: run `order-worker topics create`"
            result.assert_one_line(1, lacking)

    def test_ctrl_c_exits_130_without_a_traceback(
        self, services: Services, order_worker: OrderWorker, topics: Any, shop: Shop
    ) -> None:
        shop.stock_up({1: 10})
        process = order_worker.start("place", "--random", "1000", "--rate", "20")
        eventually(lambda: bool(values_in(services, topics.order_placed)), 30)
        process.send_signal(signal.SIGINT)
        result = ended(process)
        assert result.code == 130
        assert "Traceback" not in result.err
