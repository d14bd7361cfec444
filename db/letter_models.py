"""The tables about dead letters: which were redriven, and which are settled."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, Identity, Index, Integer, String, UniqueConstraint, func, text
from sqlalchemy.orm import Mapped, mapped_column

from db.base import Base
from db.statuses import RedriveStatus


class DeadLetterRedrive(Base):
    """A dead letter that was sent to the input topic again. There is one of a source: never a second time."""

    __tablename__ = "dead_letter_redrives"
    __table_args__ = (
        CheckConstraint("status IN ('claimed', 'sent', 'decided', 'failed', 'duplicate')", name="status"),
        UniqueConstraint("source_topic", "source_partition", "source_offset"),
        # What a run still has to do, in the order it does it; small, however many were ever redriven.
        Index(
            "ix_dead_letter_redrives_unfinished",
            "run_id",
            "letter_partition",
            "letter_offset",
            postgresql_where=text("status IN ('claimed', 'sent')"),
        ),
    )

    # Travels with the record as its header `redrive.id`; no upstream service can guess it.
    id: Mapped[UUID] = mapped_column(primary_key=True)
    run_id: Mapped[UUID]
    group_id: Mapped[str]
    requested_by: Mapped[str]
    requested_at: Mapped[datetime] = mapped_column(server_default=func.now())
    letter_topic: Mapped[str]
    letter_partition: Mapped[int] = mapped_column(Integer)
    letter_offset: Mapped[int]
    source_topic: Mapped[str]
    source_partition: Mapped[int] = mapped_column(Integer)
    source_offset: Mapped[int]
    error_code: Mapped[str]
    error_path: Mapped[str]
    # The edit of one field, as JSON text; or all edits as a JSON list of [field, old text, new text], where
    # an empty field is the whole value.
    changed_field: Mapped[str | None]
    old_value: Mapped[str | None]
    new_value: Mapped[str | None]
    changes: Mapped[str | None]
    # Its input partition, and the end of that before anything was sent: if it was sent, it lies after that.
    input_partition: Mapped[int] = mapped_column(Integer)
    input_from: Mapped[int]
    status: Mapped[str] = mapped_column(String(16), server_default=RedriveStatus.CLAIMED.value)
    input_offset: Mapped[int | None]
    result: Mapped[str | None]
    finished_at: Mapped[datetime | None]


class SettledLetter(Base):
    """A dead letter that an operator has marked as dealt with.

    It is identified by its source, because the same dead letter may be written again. One without a source,
    which no worker wrote, is identified by its own offset.
    """

    __tablename__ = "settled_letters"
    __table_args__ = (
        UniqueConstraint("source_topic", "source_partition", "source_offset", "source_timestamp_ms"),
    )

    id: Mapped[int] = mapped_column(Identity(always=False), primary_key=True)
    letter_topic: Mapped[str]
    letter_partition: Mapped[int] = mapped_column(Integer)
    letter_offset: Mapped[int]
    source_topic: Mapped[str]
    source_partition: Mapped[int] = mapped_column(Integer)
    source_offset: Mapped[int]
    # Besides the offset, which a recreated topic has again; -1: the dead letter does not have it.
    source_timestamp_ms: Mapped[int]
    requested_by: Mapped[str]
    note: Mapped[str]
    requested_at: Mapped[datetime] = mapped_column(server_default=func.now())
