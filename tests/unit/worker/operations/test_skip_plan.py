"""Which place may be skipped, and what is refused before anything is read."""

from datetime import UTC, datetime
from typing import Any

import pytest

from db.worker.skips import SkippedSpan
from worker.cli.skip import skip
from worker.errors import UsageError
from worker.kafka.offsets import Bounds
from worker.operations.skip.plan import InputPlace, SkipPlan, SkipRequest, parse_place, refusal, report

NOW = datetime(2026, 11, 23, 10, tzinfo=UTC)
SKIPPED = SkippedSpan(3, 120, 130, "ada", "bad disk", NOW)


def refused(offset: int = 120, through: int | None = None, *skips: SkippedSpan, **given: Any) -> str:
    found = {"bounds": Bounds(10, 200), "committed": 120, **given}
    return refusal(SkipRequest(InputPlace("placed", 3, offset), through), skips=skips, **found)


@pytest.mark.parametrize(
    "text",
    ["", "placed", "placed:3", "placed:3:-1", "placed:3:1:1", "pla ced:3:1", "placed:٣:1", "placed:3:1\n",
     f"placed:{2**31}:1", f"placed:1:{2**63}", "placed:1:" + "9" * 5_000],
)  # fmt: skip
def test_a_place_is_topic_partition_and_offset(text: str):
    with pytest.raises(UsageError, match="TOPIC:PARTITION:OFFSET"):
        parse_place(text)
    assert parse_place("a.b-c_d:3:120") == InputPlace("a.b-c_d", 3, 120)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"execute": True}, "--by is missing"),
        ({"execute": True, "requested_by": " "}, "--by is missing"),
        ({"execute": True, "requested_by": "ada"}, "--note is missing"),
        ({"requested_by": "a\nb"}, "--by: write at most 100 characters, on one line"),
        ({"requested_by": "ada", "note": "\udcff"}, "--note: write at most 1,000 characters"),
        ({"requested_by": "ada", "note": "x" * 1_001}, "--note: write at most"),
        ({}, "only places of the input topic, order-placed, can be skipped"),
    ],
)
def test_what_cannot_be_meant_is_refused(options: dict[str, Any], said: str):
    with pytest.raises(UsageError, match=said):
        skip("order-placed-dlt:0:1", **options)


def test_a_place_where_the_group_waits_is_read():
    assert refused() == ""
    assert refused(committed=None) == ""
    assert refused(150, 160) == ""


@pytest.mark.parametrize(
    ("arguments", "given", "said"),
    [
        ((119,), {}, "placed:3:119 is behind the workers already: the group has committed 120"),
        ((9,), {"committed": None}, "placed:3:9 is deleted: the first offset that is there is 10"),
        ((200,), {}, "offset 200 of placed-3 is beyond what can be read: the partition ends at 200"),
        ((120, 200), {}, "offset 200 of placed-3 is beyond"),
        ((120, 119), {}, "--through 119 lies before placed:3:120"),
        ((125, None, SKIPPED), {}, "skipped already: offsets 120 to 129 were skipped by ada"),
        ((120, 129, SKIPPED), {}, "is skipped already"),
    ],
)  # fmt: skip
def test_what_needs_no_skip_is_refused(arguments: tuple[Any, ...], given: dict[str, Any], said: str):
    assert said in refused(*arguments, **given)


def test_a_skip_that_covers_less_is_no_hindrance():
    assert refused(120, 135, SKIPPED) == ""
    assert refused(130, None, SKIPPED) == ""


def plan(**given: Any) -> SkipPlan:
    fields: dict[str, Any] = {
        "topic": "placed", "group_id": "shop", "partition": 3, "from_offset": 120, "to_offset": 130,
        "why": "its batch has a wrong checksum", "committed": 120, "end": 200, "requested_by": "ada",
        "note": "bad disk",
    }  # fmt: skip
    return SkipPlan(**fields | given)


def test_a_rehearsal_says_what_what_it_means_and_how_to_do_it():
    assert report(plan(), "do it") == [
        "placed-3: offsets 120 to 129 cannot be read: its batch has a wrong checksum.",
        "Up to 10 records; the orders in them are lost to the workers: ask upstream to send them again.",
        "The group shop waits before it, with 70 offsets behind it.",
        "Nothing was changed. To skip them: do it",
    ]
    assert report(plan(committed=100), "")[2].startswith("The group shop has 20 offsets before it to decide")
    assert report(plan(executed=True), "")[-1].startswith("On record: skipped by ada: bad disk. A worker")
