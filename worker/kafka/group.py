"""The consumer group as Kafka describes it: its members and its committed offsets."""

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
# How long the coordinator may take to return an offset whose commit it has acknowledged.
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
    """The members of the group; none if the group does not exist."""
    return await until_coordinator_ready(lambda: _members(admin, group_id))


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
    """Empty while the group rebalances: Kafka has no assignment then."""
    return tuple(ConsumerProtocol.ASSIGNMENT.decode(assignment).partitions()) if assignment else ()


async def partitions_now(admin: AIOKafkaAdminClient, topic: str) -> list[TopicPartition]:
    """All partitions of the topic at this moment; a consumer's own list may be old."""
    (found,) = await of_some_node(lambda: admin.describe_topics([topic]))
    if found["error_code"]:
        raise for_code(found["error_code"])(f"describing the topic {topic}")
    return [TopicPartition(topic, number) for number in sorted(p["partition"] for p in found["partitions"])]


async def require_stopped(admin: AIOKafkaAdminClient, group_id: str) -> None:
    """Raise CommandError, which names the members, unless the group is empty."""
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

    Raises GroupCoordinatorNotAvailableError if the group's coordinator does not answer within the limit
    (`Leases.committed_offsets` says what aiokafka's consumer returns then).
    """
    found = await commits(admin, group_id, partitions)
    return {p: None if commit is None else commit.offset for p, commit in found.items()}


async def commits(
    admin: AIOKafkaAdminClient,
    group_id: str,
    partitions: Sequence[TopicPartition],
    patience_seconds: float = LIMIT_SECONDS,
) -> dict[TopicPartition, OffsetAndMetadata | None]:
    """As `committed`, with the metadata, which shows who committed: worker or operator (`offset_mark`)."""
    if not partitions:
        return {}
    return await until_coordinator_ready(lambda: _commits(admin, group_id, partitions), patience_seconds)


async def until_shown(
    admin: AIOKafkaAdminClient,
    group_id: str,
    partitions: Sequence[TopicPartition],
    is_right: Callable[[Commits], bool],
) -> None:
    """Return when Kafka returns the committed offsets: it acknowledges a commit a moment before that."""
    deadline = time.monotonic() + _TOLD_SECONDS
    while not is_right(await commits(admin, group_id, partitions)):
        if time.monotonic() > deadline:
            raise CommandError(
                "the group was moved, and Kafka still returns another offset: check before workers start"
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


async def until_coordinator_ready(ask: Callable[[], Awaitable[T]], seconds: float = LIMIT_SECONDS) -> T:
    """The answer; asks again while the group's coordinator is not ready, up to a limit."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return await ask()
        except _NOT_YET:
            if time.monotonic() > deadline:
                raise
        await asyncio.sleep(_AGAIN_SECONDS)
