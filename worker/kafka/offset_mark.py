"""The metadata that workers commit with an offset; an operator's commits do not have it. Pure."""

from typing import Final

from aiokafka.structs import OffsetAndMetadata

MARK: Final = "order-worker"
MOVED_BY_REPLAY: Final = "order-worker-replay"
"""where `order-worker replay` moved the group: forward only past records that are decided and published"""


def idle_mark(pending_to: int | None) -> str:
    """For an offset at which no batch ends: after transaction markers or skipped records. `pending_to`: what
    `positions` holds at that time."""
    return f"{MARK} {pending_to or 0}"


def is_workers_mark(metadata: str) -> bool:
    """False: an operator moved the group there, or a consumer that is no worker committed in its name."""
    return metadata == MARK or metadata.startswith(f"{MARK} ")


def is_unmarked(metadata: str) -> bool:
    """Whether neither a worker nor `order-worker replay` has committed it.

    It is from Kafka's own tool, or from a consumer with our group id, whose records nobody has decided.
    """
    return metadata != MOVED_BY_REPLAY and not is_workers_mark(metadata)


def pending_when_committed(offset: int, metadata: str) -> int:
    """The offset that `positions` held at least when a worker committed this offset.

    PostgreSQL records a batch before Kafka does. If `positions` holds less now, PostgreSQL has lost rows.
    """
    pending_to = metadata.removeprefix(MARK).strip()
    return min(offset, int(pending_to)) if pending_to.isdecimal() else offset


def has_decided(commit: OffsetAndMetadata | None) -> bool:
    """Whether the group has decided records, or an operator moved it; an idle worker commits as well."""
    if commit is None:
        return False
    return not is_workers_mark(commit.metadata) or pending_when_committed(commit.offset, commit.metadata) > 0
