"""Keeps a consumer in its group after errors that aiokafka 0.14 would repeat for ever."""

from typing import Any

from aiokafka.errors import KafkaError


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


def has_stopped(coordinator: Any, fetcher: Any) -> bool:
    """Whether one of the two tasks without which no record arrives has ended: nothing starts it again."""
    tasks = (getattr(coordinator, "_coordination_task", None), getattr(fetcher, "_fetch_task", None))
    return any(task and task.done() for task in tasks)
