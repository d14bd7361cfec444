"""What `redrives` stores and returns."""

from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from db.statuses import RedriveStatus

SourcePlace = tuple[str, int, int]
"""topic, partition and offset of the record that could not be decided; it identifies a dead letter"""


class Run(NamedTuple):
    """One call of an operator, for the workers of one group."""

    run_id: UUID
    group_id: str
    requested_by: str
    letter_topic: str


class Claim(NamedTuple):
    """A dead letter that is to be redriven. `changed_field` and the two values go together.

    `changes`: several edits, or that of the whole value, as JSON text.
    """

    id: UUID
    letter_partition: int
    letter_offset: int
    source: SourcePlace
    error_code: str
    error_path: str
    input_partition: int
    input_from: int
    changed_field: str | None = None
    old_value: str | None = None
    new_value: str | None = None
    changes: str | None = None


@dataclass(frozen=True, slots=True)
class Redrive:
    """One stored redrive."""

    id: UUID
    run_id: UUID
    requested_by: str
    requested_at: datetime
    letter_partition: int
    letter_offset: int
    source_topic: str
    source_partition: int
    source_offset: int
    changed_field: str | None
    old_value: str | None
    new_value: str | None
    changes: str | None
    status: str
    input_partition: int
    input_offset: int | None
    result: str | None
    finished_at: datetime | None

    @property
    def source(self) -> SourcePlace:
        return self.source_topic, self.source_partition, self.source_offset


class Finish(NamedTuple):
    """How a redrive ended."""

    id: UUID
    status: RedriveStatus
    result: str
