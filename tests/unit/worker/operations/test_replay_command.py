"""What an operator writes for a replay, before anything is asked of a server."""

from datetime import UTC, datetime
from typing import Any

import pytest

from worker.cli.replay import _target, replay
from worker.errors import UsageError
from worker.operations.replay.plan import Target, To


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "give exactly one of --to-datetime, --by-duration"),
        ({"to_earliest": True, "to_latest": True}, "give exactly one of"),
        ({"to_offset": 0, "shift_by": 0}, "give exactly one of"),
        ({"to_datetime": "2026-01-01T00:00:00"}, "the time zone is missing"),
        ({"by_duration": "2 hours"}, "write a duration like PT2H"),
        ({"by_duration": "P999999D"}, "that is before the year 1"),
        ({"to_earliest": True, "topic": "a b"}, "write a topic, or some of its partitions"),
        ({"to_earliest": True, "topic": "order-placed-dlt"}, "only the input topic, order-placed, can be"),
    ],
)
def test_what_cannot_be_meant_is_refused(options: dict[str, Any], said: str):
    with pytest.raises(UsageError, match=said):
        replay(**options)


def test_each_option_names_its_target():
    assert _target("--to-earliest", True) == Target(To.EARLIEST)
    assert _target("--to-latest", True) == Target(To.LATEST)
    assert _target("--to-offset", 1) == Target(To.OFFSET, 1)
    assert _target("--shift-by", -1) == Target(To.SHIFT, -1)
    at = datetime(2026, 11, 23, 10, tzinfo=UTC)
    assert _target("--to-datetime", "2026-11-23T11:00:00+01:00") == Target(To.TIME, time=at)
    ago = _target("--by-duration", "PT2H").time
    assert ago is not None
    assert 7_199 < (datetime.now(UTC) - ago).total_seconds() < 7_260
