"""Checks, before a worker starts, that its Kafka user has the rights that it needs.

For topics and groups Kafka reports what the user may do. For transactional ids it only shows whether the user
may see them, which every user with WRITE may.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import (
    GroupAuthorizationFailedError,
    TopicAuthorizationFailedError,
    TransactionalIdAuthorizationFailed,
)
from aiokafka.protocol.admin import DescribeGroupsRequest_v3, DescribeGroupsResponse_v3
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import Array, Boolean, Int16, Int32, Schema, String

from worker.errors import CommandError
from worker.kafka.clients import KAFKA_ERRORS, kafka_admin, of_some_node
from worker.kafka.group import until_coordinator_ready
from worker.settings import Settings

READ: Final = "READ"
WRITE: Final = "WRITE"
DESCRIBE_CONFIGS: Final = "DESCRIBE_CONFIGS"
_BITS: Final = {READ: 3, WRITE: 4, DESCRIBE_CONFIGS: 10}  # of Kafka's `AclOperation`
# A new cluster has no coordinators yet, and the first batch waits for them as well.
_PATIENCE_SECONDS: Final = 2.0

Resource = tuple[str, str]
"""kind, one of `TOPIC`, `GROUP` and `IDS`, and name"""
Rights = Mapping[Resource, tuple[str, ...]]
Allowed = Mapping[Resource, int]
"""Kafka's bits; resources that Kafka says nothing about are missing"""

TOPIC: Final = "topic"
GROUP: Final = "group"
IDS: Final = "transactional ids that begin with"


class _OfTopics(Response):  # type: ignore[misc]
    API_KEY = 3
    API_VERSION = 8
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "brokers",
            Array(("node_id", Int32), ("host", String("utf-8")), ("port", Int32), ("rack", String("utf-8"))),
        ),
        ("cluster_id", String("utf-8")),
        ("controller_id", Int32),
        (
            "topics",
            Array(
                ("error_code", Int16),
                ("topic", String("utf-8")),
                ("is_internal", Boolean),
                (
                    "partitions",
                    Array(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", Array(Int32)),
                        ("isr", Array(Int32)),
                        ("offline_replicas", Array(Int32)),
                    ),
                ),
                ("authorized_operations", Int32),
            ),
        ),
        ("authorized_operations", Int32),
    )


class _AskForTopics(RequestStruct):  # type: ignore[misc]
    API_KEY = 3
    API_VERSION = 8
    RESPONSE_TYPE = _OfTopics
    SCHEMA = Schema(
        ("topics", Array(String("utf-8"))),
        ("allow_auto_topic_creation", Boolean),
        ("include_cluster_authorized_operations", Boolean),
        ("include_topic_authorized_operations", Boolean),
    )


class _TopicRights(Request[_AskForTopics]):  # type: ignore[misc]
    """Kafka's metadata in the first version that reports our rights; aiokafka 0.14 stops at the fifth."""

    API_KEY = 3

    def __init__(self, topics: Sequence[str]) -> None:
        self._topics = list(topics)

    def build(self, request_struct_class: type[_AskForTopics]) -> _AskForTopics:
        return request_struct_class(self._topics, False, False, True)


class _AskForGroups(DescribeGroupsRequest_v3):  # type: ignore[misc]
    """As in aiokafka 0.14, whose answer leaves out our rights."""

    RESPONSE_TYPE = DescribeGroupsResponse_v3


class _GroupRights(Request[_AskForGroups]):  # type: ignore[misc]
    API_KEY = 15

    def __init__(self, groups: Sequence[str]) -> None:
        self._groups = list(groups)

    def build(self, request_struct_class: type[_AskForGroups]) -> _AskForGroups:
        return request_struct_class(self._groups, True)


async def require_kafka_rights(settings: Settings) -> str | None:
    """Raise CommandError, which names the missing rights, unless the user has all that a worker needs.

    Returns a remark if only the settings of topics may not be read. Where Kafka gives no answer, nothing is
    checked: for a topic that does not exist, or a server older than 2.3.
    """
    topics, group_id = settings.topics.all, settings.group_id
    async with kafka_admin(settings) as admin:
        allowed = {
            **await _if_said(lambda: of_some_node(lambda: _topics(admin, topics))),
            **await _if_said(lambda: _group(admin, group_id)),
            **await _if_said(lambda: _transactional_ids(admin, group_id)),
        }
    if missing := lacking(needed_by_worker(settings), allowed):
        raise CommandError(
            f"the worker's user lacks rights in Kafka: {missing}", "grant them, as deploy/kafka/acls.sh does"
        )
    unread = lacking({(TOPIC, topic): (DESCRIBE_CONFIGS,) for topic in topics}, allowed)
    return f"Kafka's own limits are assumed, without {unread}" if unread else None


def needed_by_worker(settings: Settings) -> Rights:
    """The rights that a worker needs. Pure."""
    placed, *outputs = settings.topics.all
    return {
        (TOPIC, placed): (READ,),
        # READ also on the output topics: for the page, and to find out whether a batch was published.
        **{(TOPIC, topic): (READ, WRITE) for topic in outputs},
        (GROUP, settings.group_id): (READ,),
        _ids(settings.group_id): (WRITE,),
    }


def _ids(group_id: str) -> Resource:
    """The transactional ids of workers and commands."""
    return IDS, f"{group_id}."


def lacking(needed: Rights, allowed: Allowed) -> str:
    """The missing rights, as text. Pure."""
    found = {
        place: [right for right in rights if not allowed[place] >> _BITS[right] & 1]
        for place, rights in needed.items()
        if place in allowed
    }
    return "; ".join(
        f"{' and '.join(rights)} on {kind} {name}" for (kind, name), rights in found.items() if rights
    )


async def _if_said(ask: Callable[[], Awaitable[Allowed]]) -> Allowed:
    try:
        allowed = await until_coordinator_ready(ask, _PATIENCE_SECONDS)
    except (*KAFKA_ERRORS, NotImplementedError):  # the latter: a version that the server does not know
        return {}
    return {place: bits for place, bits in allowed.items() if bits >= 0}  # below: it says nothing


async def _topics(admin: AIOKafkaAdminClient, names: Sequence[str]) -> Allowed:
    answer = await admin._send_request(_TopicRights(names))
    return _allowed(answer.to_object()["topics"], TOPIC, "topic", TopicAuthorizationFailedError.errno)


async def _group(admin: AIOKafkaAdminClient, group_id: str) -> Allowed:
    try:
        coordinator = await admin.find_coordinator(group_id)
        answer = await admin._send_request(_GroupRights([group_id]), coordinator)
    except GroupAuthorizationFailedError:
        return {(GROUP, group_id): 0}
    return _allowed(answer.to_object()["groups"], GROUP, "group", GroupAuthorizationFailedError.errno)


async def _transactional_ids(admin: AIOKafkaAdminClient, group_id: str) -> Allowed:
    """Empty if they may be seen: only the first batch shows whether WRITE is allowed."""
    kind, prefix = _ids(group_id)
    try:
        await admin.find_coordinator(f"{prefix}rights", coordinator_type=1)
    except TransactionalIdAuthorizationFailed:
        return {(kind, prefix): 0}
    return {}


def _allowed(found: Sequence[Mapping[str, Any]], kind: str, name: str, refused: int) -> Allowed:
    """All needed rights, if Kafka refuses to show the resource."""
    return {
        (kind, one[name]): 0 if one["error_code"] else one["authorized_operations"]
        for one in found
        if one["error_code"] in (0, refused)
    }
