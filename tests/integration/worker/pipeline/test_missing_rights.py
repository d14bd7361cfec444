"""A topic that the worker may not write to, on a Kafka that asks for rights."""

from collections.abc import Iterator
from uuid import uuid4

import pytest
from aiokafka import TopicPartition
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    ResourcePatternType,
    ResourceType,
)
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.support.kafka_topics import admin_client, create_topics
from tests.support.taking_over import leases_of, take_lease
from worker.core.results import Publication
from worker.core.steps import nothing_happens
from worker.kafka.limits.output_limits import OutputLimits
from worker.kafka.limits.refusals import RefusedByKafkaError
from worker.pipeline.publisher import Outgoing, Publisher
from worker.sandbox.servers.folders import data_folder
from worker.sandbox.servers.kafka import LocalKafka

TOPIC, OTHER, SOURCE = "granted", "refused", TopicPartition("placed", 0)
ASKS_FOR_RIGHTS = {
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "allow.everyone.if.no.acl.found": "true",
}


@pytest.fixture(scope="module")
def kafka() -> Iterator[LocalKafka]:
    with data_folder() as folder:
        kafka = LocalKafka(folder, settings=ASKS_FOR_RIGHTS)
        try:
            kafka.start()
            create_topics(kafka.bootstrap_servers, dict.fromkeys([TOPIC, OTHER, SOURCE.topic]), 1)
            yield kafka
        finally:
            kafka.abandon()


def grant(kafka: LocalKafka, *operations: AclOperation) -> None:
    """These rights on the topic to everybody, and no others."""
    admin = admin_client(kafka.bootstrap_servers)
    for operation in operations:
        acl = AclBinding(
            ResourceType.TOPIC,
            TOPIC,
            ResourcePatternType.LITERAL,
            "User:*",
            "*",
            operation,
            AclPermissionType.ALLOW,
        )
        admin.create_acls([acl])[acl].result(10)


async def publish(kafka: LocalKafka, engine: AsyncEngine) -> None:
    """One outcome, as a worker does: a group coordinator that is not there yet is asked again."""
    group_id = f"group-{uuid4()}"
    leases = leases_of(engine, kafka.bootstrap_servers, SOURCE.topic, (TOPIC, OTHER), group_id=group_id)
    publisher = Publisher(group_id, OutputLimits((TOPIC, OTHER)), nothing_happens)
    try:
        lease = await take_lease(leases, SOURCE)
        await publisher.publish([Outgoing(lease, [Publication(TOPIC, b"key", b"value", [], 1)], 1)])
    finally:
        await leases.producers.close()


@pytest.mark.parametrize("right", [AclOperation.DESCRIBE_CONFIGS, AclOperation.DESCRIBE])
async def test_a_right_that_is_missing_is_named(kafka: LocalKafka, engine: AsyncEngine, right: AclOperation):
    """First the topic is not even seen, then it may be seen and not written to."""
    grant(kafka, right)
    with pytest.raises(RefusedByKafkaError) as caught:
        await publish(kafka, engine)
    assert (caught.value.topic, caught.value.setting) == (TOPIC, "ACL")
    assert f"grant the worker's user WRITE and DESCRIBE on topic {TOPIC}" in str(caught.value)
