"""Kafka and PostgreSQL as local processes, really started."""

import asyncio
import logging
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from worker.kafka.topic_metadata import until_all_brokers_know
from worker.sandbox.servers import (
    Services,
    running_services,
)
from worker.sandbox.servers.folders import data_folder
from worker.sandbox.servers.jars import kafka_jars
from worker.sandbox.servers.kafka import LocalKafka, java_command, kafka_tool_command
from worker.sandbox.servers.postgres import LocalPostgres

ROOT = Path(__file__).parents[4]
CONSUMER_GROUP_COMMAND = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand"
CONSOLE_CONSUMER = "org.apache.kafka.tools.consumer.ConsoleConsumer"


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    """In a folder with all that a name may have: Kafka reads Latin-1, and takes a comma for the next one."""
    with pytest.MonkeyPatch.context() as patch, ExitStack() as servers:
        patch.setenv("ORDER_WORKER_NO_DOCKER", "1")
        with pytest.MonkeyPatch.context() as while_they_start:
            while_they_start.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("José, 100 %")))
            running = servers.enter_context(running_services())
        yield running


def test_servers_run_in_a_folder_of_any_name(local: Services) -> None:
    folder = local.kafka.folder  # type: ignore[union-attr]
    assert "José, 100 %" in str(folder)
    assert (folder / "kafka" / "data" / "meta.properties").exists()


async def test_a_row_is_committed_and_found(local: Services) -> None:
    await execute(local.database_url, "CREATE TABLE kept (id int); INSERT INTO kept VALUES (7)")

    assert await fetch(local.database_url, "SELECT id FROM kept") == 7
    assert await fetch(local.database_url, "SHOW fsync") == "on"


async def test_a_transaction_is_produced_and_consumed(local: Services) -> None:
    await create_topic(local, "produced")
    await produce(local, "produced", [b"one", b"two"])

    assert await consume(local, "produced", 2) == [b"one", b"two"]


async def test_a_frozen_postgres_answers_nobody_until_it_thaws(local: Services) -> None:
    assert local.postgres
    local.postgres.freeze()
    with pytest.raises(TimeoutError):
        await asyncpg.connect(local.database_url, timeout=0.3)
    local.postgres.thaw()

    assert await fetch(local.database_url, "SELECT 1") == 1


async def test_a_database_is_copied_from_a_template(local: Services) -> None:
    assert isinstance(local.postgres, LocalPostgres)
    template = local.postgres.create_database("template_shop")
    await execute(template, "CREATE TABLE products (id int); INSERT INTO products VALUES (5)")

    copy = local.postgres.create_database("shop", template="template_shop")
    assert await fetch(copy, "SELECT id FROM products") == 5

    local.postgres.drop_database("shop")
    assert await fetch(local.database_url, "SELECT count(*) FROM pg_database WHERE datname = 'shop'") == 0


async def test_kafkas_own_tools_read_committed_records_and_rewind_a_group(local: Services) -> None:
    await create_topic(local, "rewound")
    await produce(local, "rewound", [b"first", b"second"])
    await consume(local, "rewound", 2, group="auditors")

    arguments = ["--bootstrap-server", local.kafka_bootstrap_servers, "--topic", "rewound"]
    reset = ["--group", "auditors", "--reset-offsets", "--to-earliest", "--execute"]
    read = ["--isolation-level", "read_committed", "--from-beginning", "--max-messages", "2"]
    _, printed = await asyncio.gather(
        run_tool(CONSUMER_GROUP_COMMAND, *arguments, *reset), run_tool(CONSOLE_CONSUMER, *arguments, *read)
    )

    assert printed.split() == ["first", "second"]
    assert await committed(local, "auditors", "rewound") == 0


def test_a_folder_is_formatted_as_kafkas_own_tool_formats_it() -> None:
    with data_folder() as folder:
        kafka = LocalKafka(folder)
        kafka._format()
        ours, properties = folder / "kafka", folder / "tool.properties"
        settings = (ours / "server.properties").read_text()
        properties.write_text(settings.replace("log.dirs=data", "log.dirs=tool"))
        cluster = ("--cluster-id", kafka._member.cluster_id, "--config", properties)
        command = java_command("kafka.tools.StorageTool", ("format", *cluster), jars=kafka_jars(print))
        subprocess.run(command, cwd=ours, check=True, capture_output=True, timeout=60)
        assert formatted(ours / "data") == formatted(ours / "tool"), (
            "of another version: copy the tool's bootstrap.checkpoint to worker/sandbox/servers"
        )


def formatted(folder: Path) -> tuple[list[str], set[str], list[bytes]]:
    """The files of a folder of Kafka's, and what two of the same cluster and node have in common in them."""
    meta = (folder / "meta.properties").read_text().splitlines()
    whole, batches = (folder / "bootstrap.checkpoint").read_bytes(), []
    while whole:
        end = 12 + int.from_bytes(whole[8:12])
        batches.append(whole[:17] + whole[21:27] + whole[43:end])  # without its checksum and its two times
        whole = whole[end:]
    said = {line for line in meta if not line.startswith(("#", "directory.id="))}
    return sorted(path.name for path in folder.iterdir()), said, batches


async def test_a_client_through_a_proxy_is_sent_back_to_the_proxy() -> None:
    with data_folder() as folder:
        kafka = LocalKafka(folder, proxy_port=12_345)

    assert f"PROXIED://127.0.0.1:{kafka.proxied_port}" in kafka._settings["listeners"]
    assert "PROXIED://127.0.0.1:12345" in kafka._settings["advertised.listeners"]


async def execute(url: str, statements: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statements)
    finally:
        await connection.close()


async def fetch(url: str, query: str) -> Any:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


async def create_topic(running: Services, name: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=running.kafka_bootstrap_servers)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(name, 1, 1)])
        await until_all_brokers_know(admin, {name: 1})
    finally:
        await admin.close()


async def produce(running: Services, topic: str, values: list[bytes]) -> None:
    producer = AIOKafkaProducer(
        bootstrap_servers=running.kafka_bootstrap_servers, transactional_id=f"{topic}-{values[0]!r}"
    )
    await producer.start()
    try:
        async with producer.transaction():
            for value in values:
                await producer.send_and_wait(topic, value)
    finally:
        await producer.stop()


async def consume(running: Services, topic: str, count: int, group: str | None = None) -> list[bytes]:
    consumer = AIOKafkaConsumer(
        topic,
        bootstrap_servers=running.kafka_bootstrap_servers,
        group_id=group,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        isolation_level="read_committed",
    )
    await consumer.start()
    try:
        values = [(await asyncio.wait_for(consumer.getone(), 20)).value for _ in range(count)]
        if group:
            await consumer.commit()
        return values
    finally:
        await consumer.stop()


async def committed(running: Services, group: str, topic: str) -> int:
    admin = AIOKafkaAdminClient(bootstrap_servers=running.kafka_bootstrap_servers)
    await admin.start()
    try:
        offsets = await admin.list_consumer_group_offsets(group)
        return int(offsets[TopicPartition(topic, 0)].offset)
    finally:
        await admin.close()


async def run_tool(main: str, *arguments: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *kafka_tool_command(main, *arguments), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    output, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    logging.getLogger(__name__).info("%s", errors.decode())
    return output.decode()
