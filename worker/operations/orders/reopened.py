"""A rejected order as it is placed again: what of the record changes, and what stays. Pure."""

from typing import Final, NamedTuple
from uuid import UUID

from contracts.cloud_events import is_event
from contracts.envelope import SUPERSEDES, reopened_id
from worker.core.dead_letter import REDRIVE_HEADER
from worker.core.decode import Decoded, decode
from worker.core.triage import Record
from worker.operations.redrive.json_edit import Change, set_in_each

_OF_THE_OLD_RECORD: Final = {SUPERSEDES, REDRIVE_HEADER}


class Reopened(NamedTuple):
    """The new record, and the order that workers will read in it."""

    value: bytes
    headers: list[tuple[str, bytes | None]]
    decoded: Decoded


def reopened(record: Record, order_id: UUID, *, drop_prices: bool, max_bytes: int) -> Reopened | None:
    """The order of the record under its new id, with `drop_prices` without the prices that the buyer saw.

    All else stays as upstream wrote it. None where that is no order: larger than is allowed by now.
    """
    at = "data." if is_event(record.value or b"", record.headers) else ""
    text, _ = Change(f"{at}order_id", f'"{reopened_id(order_id)}"').apply(record.value)
    if drop_prices:
        text = set_in_each(text, f"{at}items", "unit_price", "null")
    decoded = decode(text, max_bytes, record.headers)
    kept = [(name, content) for name, content in record.headers if name not in _OF_THE_OLD_RECORD]
    link = (SUPERSEDES, str(order_id).encode())
    return Reopened(text, [*kept, link], decoded) if isinstance(decoded, Decoded) else None
