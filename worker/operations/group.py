"""The consumer group as Kafka tells of it: its members, and how far it has come."""

from collections.abc import Sequence
from dataclasses import dataclass

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import GroupCoordinatorNotAvailableError, for_code
from aiokafka.structs import OffsetAndMetadata

from worker.connections import of_some_node
from worker.errors import CommandError


@dataclass(frozen=True, slots=True)
class Member:
    """One consumer of a group: `host` is where Kafka sees it."""

    member_id: str
    client_id: str
    host: str


async def members(admin: AIOKafkaAdminClient, group_id: str) -> list[Member]:
    """Who is in the group now; nobody where there is no such group."""
    (answer,) = await of_some_node(lambda: admin.describe_consumer_groups([group_id]))
    found: list[Member] = []
    for error_code, _, state, _, _, listed, *_ in answer.groups:
        if error_code:
            raise for_code(error_code)(f"describing the group {group_id}")
        if state != "Dead":
            found += [Member(member_id, client_id, host) for member_id, client_id, host, *_ in listed]
    return found


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

    Raises GroupCoordinatorNotAvailableError while the group's coordinator does not know (`Publisher` says
    what aiokafka's consumer makes of that).
    """
    if not partitions:
        return {}
    found: dict[TopicPartition, OffsetAndMetadata] = await of_some_node(
        lambda: admin.list_consumer_group_offsets(group_id, partitions=list(partitions))
    )
    if any(p not in found for p in partitions):
        raise GroupCoordinatorNotAvailableError(f"the coordinator of {group_id} knows no offsets yet")
    return {p: None if found[p].offset < 0 else found[p].offset for p in partitions}
