"""How far an operator's command has come, kept by Kafka as a committed offset with a note.

It is committed in the transaction of what the command publishes: either both happened or neither, however
the command ends. The note says up to when the selection reaches, and up to which key of it the command came.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final
from uuid import UUID

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.structs import OffsetAndMetadata
from pydantic import TypeAdapter, ValidationError
from pydantic_core import to_json

from worker.error_texts import reason_of
from worker.errors import CommandError
from worker.kafka import group
from worker.kafka.clients import KAFKA_ERRORS

# After a crash a coordinator loads for a moment, and so it does for the new group of a selection.
_PATIENCE_SECONDS: Final = 15.0


@dataclass(frozen=True, slots=True)
class Progress:
    """`done` of `total` records, up to the ledger's key `last`, of what was decided up to `frozen_at`."""

    frozen_at: datetime
    total: int
    done: int = 0
    last: UUID | None = None
    finished_at: datetime | None = None

    def behind(self, last: UUID, count: int) -> "Progress":
        """After `count` more, of which `last` has the highest key."""
        return replace(self, done=self.done + count, last=last)

    def as_offset(self) -> OffsetAndMetadata:
        return OffsetAndMetadata(self.done, to_json(self).decode())


_NOTE: Final = TypeAdapter(Progress)


def from_offset(found: OffsetAndMetadata, group_id: str) -> Progress:
    """What was committed. Raises CommandError where it was not committed by this command."""
    try:
        return _NOTE.validate_json(found.metadata)
    except ValidationError:
        raise CommandError(
            f"the offset of the group {group_id} was not committed by this command: delete that group,"
            " and everything selected is published from the first on"
        ) from None


async def find_progress(admin: AIOKafkaAdminClient, group_id: str, place: TopicPartition) -> Progress | None:
    """How far the command has come; None: it never began, or Kafka keeps its group no longer.

    Reliable only after an earlier run is fenced: an open transaction, or one being committed, is not visible.
    Raises CommandError while the group's coordinator does not answer.
    """
    try:
        found = (await group.commits(admin, group_id, [place], _PATIENCE_SECONDS))[place]
    except KAFKA_ERRORS as error:
        raise CommandError(
            f"Kafka does not report how far this command has come ({reason_of(error)}): try again"
        ) from error
    return None if found is None else from_offset(found, group_id)
