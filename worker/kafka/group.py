"""The consumer group as Kafka tells of it: its members, and how far it has come."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.coordinator.protocol import ConsumerProtocol
from aiokafka.errors import (
    GroupCoordinatorNotAvailableError,
    GroupLoadInProgressError,
    NotCoordinatorForGroupError,
    for_code,
)
from aiokafka.structs import OffsetAndMetadata

from worker.errors import CommandError
from worker.kafka.clients import LIMIT_SECONDS, of_some_node

T = TypeVar("T")
Commits = Mapping[TopicPartition, OffsetAndMetadata | None]

_AGAIN_SECONDS: Final = 0.2
# How long the coordinator may take to tell an offset whose commit it has acknowledged.
_TOLD_SECONDS: Final = 15.0
_ASK_AGAIN_SECONDS: Final = 0.05
# A new cluster has no coordinators before somebody asks for one, and after a crash they load for a moment.
_NOT_YET: Final = (GroupCoordinatorNotAvailableError, GroupLoadInProgressError, NotCoordinatorForGroupError)


@dataclass(frozen=True, slots=True)
class Member:
    """One consumer of a group: `host` is where Kafka sees it, `partitions` what is assigned to it."""

    member_id: str
    client_id: str
    host: str
    partitions: tuple[TopicPartition, ...] = ()


async def members(admin: AIOKafkaAdminClient, group_id: str) -> list[Member]:
    """Who is in the group now; nobody where there is no such group."""
    return await patiently(lambda: _members(admin, group_id))


async def _members(admin: AIOKafkaAdminClient, group_id: str) -> list[Member]:
    (answer,) = await of_some_node(lambda: admin.describe_consumer_groups([group_id]))
    found: list[Member] = []
    for error_code, _, state, _, _, listed, *_ in answer.groups:
        if error_code:
            raise for_code(error_code)(f"describing the group {group_id}")
        if state != "Dead":
            found += [
                Member(member_id, client_id, host, _assigned(assignment))
                for member_id, client_id, host, _, assignment, *_ in listed
            ]
    return found


def _assigned(assignment: bytes) -> tuple[TopicPartition, ...]:
    """Nothing while the group is rebalancing: then Kafka holds no assignment."""
    return tuple(ConsumerProtocol.ASSIGNMENT.decode(assignment).partitions()) if assignment else ()


async def partitions_now(admin: AIOKafkaAdminClient, topic: str) -> list[TopicPartition]:
    """All partitions of the topic, as Kafka knows them at this moment; a consumer knows those of long ago."""
    (found,) = await of_some_node(lambda: admin.describe_topics([topic]))
    if found["error_code"]:
        raise for_code(found["error_code"])(f"describing the topic {topic}")
    return [TopicPartition(topic, number) for number in sorted(p["partition"] for p in found["partitions"])]


async def require_stopped(admin: AIOKafkaAdminClient, group_id: str) -> None:
    """Nobody is in the group, or a CommandError names who is."""
    running = await members(admin, group_id)
    if running:
        names = ", ".join(f"{one.client_id} at {one.host.lstrip('/')} ({one.member_id})" for one in running)
        raise CommandError(
            f"the group {group_id} is running: {names}; stop its workers first (a killed one leaves after"
            " the session timeout)"
        )


async def committed(
    admin: AIOKafkaAdminClient, group_id: str, partitions: Sequence[TopicPartition]
) -> dict[TopicPartition, int | None]:
    """The committed offset of each partition; None: the group has committed nothing there.

    Raises GroupCoordinatorNotAvailableError where the group's coordinator does not know within the limit
    (`Publisher` says what aiokafka's consumer makes of that).
    """
    found = await commits(admin, group_id, partitions)
    return {p: None if commit is None else commit.offset for p, commit in found.items()}


async def commits(
    admin: AIOKafkaAdminClient,
    group_id: str,
    partitions: Sequence[TopicPartition],
    patience_seconds: float = LIMIT_SECONDS,
) -> dict[TopicPartition, OffsetAndMetadata | None]:
    """As `committed`, with the metadata: a worker's, or that of an operator's move (`offset_mark`)."""
    if not partitions:
        return {}
    return await patiently(lambda: _commits(admin, group_id, partitions), patience_seconds)


async def until_shown(
    admin: AIOKafkaAdminClient,
    group_id: str,
    partitions: Sequence[TopicPartition],
    is_right: Callable[[Commits], bool],
) -> None:
    """Return when Kafka tells what was committed: it acknowledges a commit a moment before it shows it."""
    deadline = time.monotonic() + _TOLD_SECONDS
    while not is_right(await commits(admin, group_id, partitions)):
        if time.monotonic() > deadline:
            raise CommandError(
                "the group was moved, and Kafka still tells another offset: look again before workers start"
            )
        await asyncio.sleep(_ASK_AGAIN_SECONDS)


async def _commits(
    admin: AIOKafkaAdminClient, group_id: str, partitions: Sequence[TopicPartition]
) -> dict[TopicPartition, OffsetAndMetadata | None]:
    found: dict[TopicPartition, OffsetAndMetadata] = await of_some_node(
        lambda: admin.list_consumer_group_offsets(group_id, partitions=list(partitions))
    )
    if any(p not in found for p in partitions):
        raise GroupCoordinatorNotAvailableError(f"the coordinator of {group_id} knows no offsets yet")
    return {p: None if found[p].offset < 0 else found[p] for p in partitions}


async def patiently(ask: Callable[[], Awaitable[T]], seconds: float = LIMIT_SECONDS) -> T:
    """The answer, asked for again while the group's coordinator is not ready; its error past the limit."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return await ask()
        except _NOT_YET:
            if time.monotonic() > deadline:
                raise
        await asyncio.sleep(_AGAIN_SECONDS)
