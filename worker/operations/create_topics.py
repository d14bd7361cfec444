"""`topics create`: the four topics, with what each needs to keep its promise."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import TopicAlreadyExistsError, for_code

from worker.connections import KAFKA_ERRORS, kafka_admin, reason_of, topic_names
from worker.errors import CommandError
from worker.operations.topic_metadata import until_all_brokers_know
from worker.settings import Settings

BROKER_DEFAULT: Final = -1

_DAY_MS: Final = 24 * 60 * 60 * 1000
_MIB: Final = 1024 * 1024
# The input topic is the retry log: a record must outlive the longest time that all workers are away.
_INPUT_RETENTION_MS: Final = 14 * _DAY_MS
# Time for a subscriber to come back and read on. Older outcomes are in the ledger (`republish`).
_OUTCOME_RETENTION_MS: Final = 14 * _DAY_MS
# Somebody has to look, repair and redrive: longer than the input is kept, because after that
# the dead letter is the only copy.
_DEAD_LETTER_RETENTION_MS: Final = 30 * _DAY_MS
# A dead letter is a record as large as the input takes, and our headers that tell why. Kafka's
# default limit is 1 MiB and 12 bytes: beside it a dead letter may have 2 MiB.
_HEADER_ROOM_BYTES: Final = _MIB - 12
_USUAL_MAX_BYTES: Final = _MIB + 12
_MAX_BYTES: Final = "max.message.bytes"


@dataclass(frozen=True, slots=True)
class TopicState:
    """One topic after `create_topics`; `remark` says what an operator should look at."""

    name: str
    created: bool
    partitions: int
    replicas: int
    retention_ms: int
    max_message_bytes: int
    remark: str = ""


async def create_topics(
    settings: Settings, partitions: int, replication: int = BROKER_DEFAULT
) -> list[TopicState]:
    """Create those of the four topics that are missing; one that exists is never changed.

    Returns when every broker knows all four. Raises CommandError where that is not so in time.
    """
    names = topic_names(settings)
    async with kafka_admin(settings) as admin:
        try:
            copies = replication if replication > 0 else await _default_replication(admin)
            created = {
                name: await _create(admin, NewTopic(name, partitions, copies, topic_configs=configs))
                for name, configs in zip(names[:3], _configs(), strict=True)
            }
            # Before, a broker may not have heard of it, and would tell no limit.
            await until_all_brokers_know(admin, _counts(created, partitions))
            limit = max((await _describe(admin, names[:1]))[0].max_message_bytes, _USUAL_MAX_BYTES)
            room = limit + _HEADER_ROOM_BYTES
            configs = _lasting(_DEAD_LETTER_RETENTION_MS) | {_MAX_BYTES: str(room)}
            created[names[3]] = await _create(
                admin, NewTopic(names[3], partitions, copies, topic_configs=configs)
            )
            await until_all_brokers_know(admin, _counts(created, partitions))
            found = await _describe(admin, names)
        except KAFKA_ERRORS as error:
            raise CommandError(
                f"Kafka at {settings.kafka_bootstrap_servers} could not create the topics: {reason_of(error)}"
            ) from error
    needed = dict.fromkeys(names, 0) | {names[3]: room}
    return [
        replace(
            topic,
            created=created[topic.name],
            remark="" if created[topic.name] else _remark(topic, partitions, needed[topic.name]),
        )
        for topic in found
    ]


def table(topics: Sequence[TopicState]) -> str:
    """The topics, a line each, in columns that align."""
    width = max(len("topic"), *(len(t.name) for t in topics))
    lines = [f"{'topic':<{width}}  {'':<7}  {'partitions':>10}  {'replicas':>8}  {'kept':>8}  {'largest':>9}"]
    lines += [
        f"{t.name:<{width}}  {'created' if t.created else 'exists':<7}  {t.partitions:>10}  {t.replicas:>8}"
        f"  {_duration(t.retention_ms):>8}  {t.max_message_bytes // 1024:>5} KiB  {t.remark}".rstrip()
        for t in topics
    ]
    return "\n".join(lines)


def _configs() -> tuple[dict[str, str], dict[str, str], dict[str, str]]:
    outcome = _lasting(_OUTCOME_RETENTION_MS)
    return _lasting(_INPUT_RETENTION_MS), outcome, outcome


def _lasting(retention_ms: int) -> dict[str, str]:
    # Never compacted: a second record of a key must not remove the first before everybody has read it.
    return {"cleanup.policy": "delete", "retention.ms": str(retention_ms)}


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
    """What the brokers use where nothing is asked for; 1 if they do not tell.

    Asked for, because aiokafka speaks a version of the protocol in which -1 is not allowed yet.
    """
    brokers = (await admin.describe_cluster())["brokers"]
    resource = ConfigResource(
        ConfigResourceType.BROKER, str(brokers[0]["node_id"]), {"default.replication.factor": None}
    )
    values = _values(await admin.describe_configs([resource]))
    return int(next(iter(values.values()), {}).get("default.replication.factor", 1))


async def _describe(admin: AIOKafkaAdminClient, names: Sequence[str]) -> list[TopicState]:
    resources = [
        ConfigResource(ConfigResourceType.TOPIC, name, {"retention.ms": None, _MAX_BYTES: None})
        for name in names
    ]
    configs = _values(await admin.describe_configs(resources))
    metadata = {topic["topic"]: topic for topic in await admin.describe_topics()}
    return [_state(name, metadata.get(name), configs.get(name, {})) for name in names]


def _state(name: str, metadata: dict[str, Any] | None, configs: dict[str, str]) -> TopicState:
    partitions = metadata["partitions"] if metadata else []
    return TopicState(
        name=name,
        created=False,
        partitions=len(partitions),
        replicas=min((len(p["replicas"]) for p in partitions), default=0),
        retention_ms=int(configs.get("retention.ms", -1)),
        max_message_bytes=int(configs.get(_MAX_BYTES, 0)),
    )


def _values(responses: Sequence[Any]) -> dict[str, dict[str, str]]:
    """Resource name → setting → value, of those resources that may be read."""
    return {
        name: {entry[0]: entry[1] for entry in entries}
        for response in responses
        for error_code, _, _, name, entries in response.resources
        if not error_code
    }


def _remark(topic: TopicState, partitions: int, needed_bytes: int) -> str:
    remarks = []
    if topic.partitions < partitions:
        remarks.append(f"has {topic.partitions} partitions, not {partitions}")
    if 0 < topic.max_message_bytes < needed_bytes:
        remarks.append(f"{_MAX_BYTES} should be {needed_bytes} to hold any dead letter")
    return "; ".join(remarks)


def _duration(milliseconds: int) -> str:
    if milliseconds < 0:
        return "for good"
    days, rest = divmod(milliseconds, _DAY_MS)
    return f"{days} days" if not rest else f"{milliseconds / _DAY_MS:.1f} days"
