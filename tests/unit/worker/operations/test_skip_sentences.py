"""What is said of spans of the input that no worker decides."""

from datetime import UTC, datetime

from db.worker.skips import SkippedSpan
from worker.operations.skip.sentences import sentence

NOW = datetime(2026, 11, 23, 10, tzinfo=UTC)


def test_a_skip_names_its_offsets_who_when_and_why():
    assert sentence(SkippedSpan(0, 120, 121, "ada", "bad disk", NOW)) == (
        "offset 120 was skipped by ada at 2026-11-23 10:00:00.000Z: bad disk"
    )
    assert sentence(SkippedSpan(0, 1_200, 1_300, "ada\x1b", "a\nb", NOW)) == (
        "offsets 1,200 to 1,299 were skipped by ada· at 2026-11-23 10:00:00.000Z: a·b"
    )


def test_what_deleted_offsets_held_is_unknown():
    assert sentence(SkippedSpan(0, 100, 150, "shop", "retention", NOW, "deleted")) == (
        "offsets 100 to 149 were deleted before they were decided, up to 50 records"
        " (found 2026-11-23 10:00:00.000Z by group shop)"
    )
    assert sentence(SkippedSpan(0, 1, 2, "shop", "retention", NOW, "deleted")).startswith(
        "offset 1 was deleted before it was decided, up to 1 record (found"
    )
