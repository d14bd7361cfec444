"""A consumer's place in its group, where aiokafka 0.14 would repeat an error for ever, or wait in vain."""

import asyncio
from contextlib import suppress
from typing import Any, Final

from aiokafka import errors
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.errors import BrokerResponseError, KafkaError
from aiokafka.protocol.group import LeaveGroupRequest

LEFT_WITHIN_SECONDS: Final = 2.0


class GroupMaxSizeReachedError(BrokerResponseError):  # type: ignore[misc]
    """The group has as many members as the brokers allow."""

    errno = 81
    message = "GROUP_MAX_SIZE_REACHED"

    def __init__(self) -> None:
        super().__init__("the group has as many members as group.max.size of the brokers allows")


# aiokafka 0.14 does not know the code and would make "unknown error" of it.
errors.kafka_errors.setdefault(GroupMaxSizeReachedError.errno, GroupMaxSizeReachedError)


class FetchStoppedError(KafkaError):  # type: ignore[misc]
    """A task of aiokafka's has ended: this consumer gets no records any more, a new one does."""


def check_group(coordinator: Any) -> None:
    """Raise the error that keeps this consumer out of its group; the group is joined again after it.

    A heartbeat that was refused, for a right that is missing say, ends aiokafka's task for heartbeats. Only
    joining again starts another one: without it, the same error would be raised also after its cause is gone.
    """
    try:
        coordinator.check_errors()
    except KafkaError:
        tasks = (getattr(coordinator, name, None) for name in ("_heartbeat_task", "_commit_refresh_task"))
        if any(task and task.done() and not task.cancelled() and task.exception() for task in tasks):
            coordinator.request_rejoin()
        raise


async def leave_while_joining(client: Any, coordinator: Any) -> None:
    """If Kafka has not let this consumer join its group yet, leave: `close` would wait for Kafka's answer.

    That comes once each member has finished its batch, or was silent for the session timeout. And aiokafka
    leaves without a word then, so the next join waits for a member that is gone.
    """
    if not isinstance(coordinator, GroupCoordinator) or coordinator._closing.done():
        return
    is_joining = coordinator._performed_join_prepare and coordinator._heartbeat_task is None
    if is_joining and coordinator.member_id and coordinator.coordinator_id is not None:
        leaving = LeaveGroupRequest(coordinator.group_id, coordinator.member_id)
        with suppress(KafkaError, OSError, TimeoutError):
            # By another connection than the join's: Kafka answers the requests of a connection in order.
            await asyncio.wait_for(client.send(coordinator.coordinator_id, leaving), LEFT_WITHIN_SECONDS)


def has_stopped(coordinator: Any, fetcher: Any) -> bool:
    """Whether one of the two tasks without which no record arrives has ended: nothing starts it again."""
    tasks = (getattr(coordinator, "_coordination_task", None), getattr(fetcher, "_fetch_task", None))
    return any(task and task.done() for task in tasks)
