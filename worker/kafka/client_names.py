"""The name that a worker gives itself in its group, by which everybody who asks Kafka sees its version."""

from typing import Final

from worker import __version__

_PREFIX: Final = "order-worker-"
WORKER_CLIENT_ID: Final = f"{_PREFIX}{__version__}"


def version_of(client_id: str) -> str | None:
    """The version of the worker of that name; None: one of an earlier version, or no worker."""
    return client_id.removeprefix(_PREFIX) if client_id.startswith(_PREFIX) else None
