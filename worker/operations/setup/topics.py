"""`topics create`: the four topics, with what each needs to keep its promise."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import TopicAlreadyExistsError, for_code
from rich.console import Group
from rich.text import Text

from contracts.topics import HEADER_ROOM_BYTES, TOPICS, USUAL_MAX_BYTES
from worker.error_texts import reason_of
from worker.errors import CommandError
from worker.kafka.clients import KAFKA_ERRORS, describe_limits, kafka_admin, topic_uses
from worker.kafka.limits.remarks import remarks
from worker.kafka.limits.topic_limits import TopicLimits, settings_of
from worker.kafka.topic_metadata import until_all_brokers_know
from worker.operations.screen import table
from worker.settings import Settings

BROKER_DEFAULT: Final = -1

_DAY_MS: Final = 24 * 60 * 60 * 1000


@dataclass(frozen=True, slots=True)
class TopicState:
    """One topic after `create_topics`; `remarks` say what an operator should look at."""

    name: str
    created: bool
    partitions: int
    replicas: int
    limits: TopicLimits
    remarks: tuple[str, ...] = ()


async def create_topics(
    settings: Settings, partitions: int, replication: int = BROKER_DEFAULT
) -> list[TopicState]:
    """Create those of the four topics that are missing; one that exists is never changed.

    Returns when every broker knows all four. Raises CommandError where that is not so in time.
    """
    names, uses = settings.topics.all, topic_uses(settings)
    async with kafka_admin(settings) as admin:
        try:
            copies = replication if replication > 0 else await _default_replication(admin)
            created = {
                name: await _create(admin, NewTopic(name, partitions, copies, topic_configs=topic.settings))
                for name, topic in zip(names[:3], TOPICS[:3], strict=True)
            }
            # Before, a broker may not know the topic and would report no limits.
            await until_all_brokers_know(admin, _counts(created, partitions))
            (placed,) = await _described(admin, names[:1])
            room = max(placed.limits.max_batch_bytes, USUAL_MAX_BYTES) + HEADER_ROOM_BYTES
            configs = TOPICS[3].settings | {"max.message.bytes": str(room)}
            created[names[3]] = await _create(
                admin, NewTopic(names[3], partitions, copies, topic_configs=configs)
            )
            await until_all_brokers_know(admin, _counts(created, partitions))
            found = await _described(admin, names)
        except KAFKA_ERRORS as error:
            raise CommandError(
                f"Kafka at {settings.kafka_bootstrap_servers} could not create the topics: {reason_of(error)}"
            ) from error
    return [
        replace(
            topic,
            created=created[topic.name],
            # What was created just now is as it should be.
            remarks=()
            if created[topic.name]
            else (*_few(topic, partitions), *remarks(topic.name, uses[topic.name], topic.limits, room)),
        )
        for topic in found
    ]


def topics_screen(topics: Sequence[TopicState]) -> Group:
    """The topics, a row each; below, a line for each remark."""
    head = ("topic", "", "partitions", "replicas", "kept", "largest")
    rows = [
        (
            topic.name,
            "created" if topic.created else "exists",
            topic.partitions,
            topic.replicas,
            _duration(topic.limits),
            _largest(topic.limits),
        )
        for topic in topics
    ]
    remarks_below = (Text(remark) for topic in topics for remark in topic.remarks)
    return Group(table(head, rows, numbers=head[2:], ruled=False), *remarks_below)


async def _create(admin: AIOKafkaAdminClient, topic: NewTopic) -> bool:
    """False if it exists already, also if somebody else creates it at this moment."""
    response = await admin.create_topics([topic])
    for name, code, message in response.topic_errors:
        if code == TopicAlreadyExistsError.errno:
            return False
        if code:
            raise CommandError(f"Kafka refused to create {name}: {message or for_code(code).__name__}")
    return True


def _counts(created: Mapping[str, bool], partitions: int) -> dict[str, int]:
    """How many partitions each topic has at least."""
    return {name: partitions if is_new else 1 for name, is_new in created.items()}


async def _default_replication(admin: AIOKafkaAdminClient) -> int:
    """What the brokers use where nothing is asked for; 1 where they know no such setting.

    Asked for, because aiokafka speaks a version of the protocol in which -1 is not allowed yet. Raises
    CommandError where they may not tell us: topics without a copy would be lost with a broker.
    """
    brokers = (await admin.describe_cluster())["brokers"]
    resource = ConfigResource(
        ConfigResourceType.BROKER, str(brokers[0]["node_id"]), {"default.replication.factor": None}
    )
    values = settings_of(await admin.describe_configs([resource]))
    if not values:
        raise CommandError(
            "Kafka does not say how many copies its brokers keep: DESCRIBE_CONFIGS on the cluster is missing",
            "grant it, or say --replication N",
        )
    return int(next(iter(values.values())).get("default.replication.factor", 1))


async def _described(admin: AIOKafkaAdminClient, names: Sequence[str]) -> list[TopicState]:
    """Topics that every broker knows."""
    known = {topic["topic"]: topic["partitions"] for topic in await admin.describe_topics()}
    limits = await describe_limits(admin, names)
    return [_state(name, known[name], limits.get(name, TopicLimits())) for name in names]


def _state(name: str, partitions: Sequence[Mapping[str, Any]], limits: TopicLimits) -> TopicState:
    replicas = min(len(partition["replicas"]) for partition in partitions)
    return TopicState(name, created=False, partitions=len(partitions), replicas=replicas, limits=limits)


def _few(topic: TopicState, partitions: int) -> list[str]:
    if topic.partitions >= partitions:
        return []
    return [f"{topic.name}: has {topic.partitions} partitions, not {partitions}"]


def _largest(limits: TopicLimits) -> str:
    return f"{limits.max_batch_bytes // 1024} KiB" if limits.is_read else "?"


def _duration(limits: TopicLimits) -> str:
    if not limits.is_read:
        return "?"
    if limits.retention_ms < 0:
        return "for good"
    days, rest = divmod(limits.retention_ms, _DAY_MS)
    return f"{days} days" if not rest else f"{limits.retention_ms / _DAY_MS:.1f} days"
