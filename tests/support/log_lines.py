"""The log of a worker that writes JSON: each line as docs/json/log-line.json says."""

import json
from collections.abc import Iterator
from typing import Any

from tests.support.json_schema import faults


def log_lines(log: str) -> list[dict[str, Any]]:
    """All lines, once they are what the schema says and hold nothing of a record."""
    lines = list(_read(log))
    assert lines, log
    return lines


def _read(log: str) -> Iterator[dict[str, Any]]:
    for text in log.splitlines():
        line = json.loads(text)
        assert faults(line, "log-line") == [], text
        for name in ("product_id", "unit_price", "quantity"):
            assert name not in line["message"], text
        yield line
