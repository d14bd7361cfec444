"""Order ids out of a file: one a line, or the orders themselves."""

import json
from pathlib import Path
from typing import Final
from uuid import UUID

from contracts.fields import parse_order_id
from worker.errors import UsageError
from worker.operations.place.order_file import FileLine, file_name, order_lines, readable_twice

MOST: Final = 100_000  # they are held in memory, and asked for by their ids


def read_ids(path: Path, max_bytes: int) -> tuple[UUID, ...]:
    """The ids in the file ("-": standard input), each once: a line is an id, or an order-placed value.

    Raises UsageError that names the first line that is neither, or a file without any or with too many.
    """
    name = file_name(path)
    ids: dict[UUID, None] = {}
    with readable_twice(path) as file:
        for line in order_lines(file, max_bytes):
            order_id = _id_of(line)
            if order_id is None:
                raise UsageError(
                    f"{name}:{line.number}: no order id: write a UUID a line, or orders as for `place`"
                )
            ids[order_id] = None
            if len(ids) > MOST:
                raise UsageError(f"{name} has more than {MOST:,} ids: split it, or choose by --from and --to")
    if not ids:
        raise UsageError(f"{name} holds no order ids")
    return tuple(ids)


def _id_of(line: FileLine) -> UUID | None:
    # Some editors begin a file with a byte order mark.
    text = line.value.decode(errors="replace").removeprefix("\ufeff").strip()
    if not text.startswith("{"):
        return parse_order_id(text)
    try:
        order_id = json.loads(text)["order_id"]
    except (ValueError, KeyError, RecursionError):
        return None
    return parse_order_id(order_id) if isinstance(order_id, str) else None
