"""What of the rights that a worker needs is missing, by what Kafka says is allowed."""

import pytest

from worker.kafka.rights import GROUP, IDS, TOPIC, lacking, needed_by_worker
from worker.settings import Settings

READ_AND_WRITE, READ_ONLY, ALL = 1 << 3 | 1 << 4, 1 << 3, (1 << 13) - 1
NEEDED = {(TOPIC, "out"): ("READ", "WRITE"), (GROUP, "shop"): ("READ",), (IDS, "shop."): ("WRITE",)}


@pytest.mark.parametrize(
    ("allowed", "missing"),
    [
        (dict.fromkeys(NEEDED, ALL), ""),
        ({(TOPIC, "out"): READ_AND_WRITE, (GROUP, "shop"): READ_ONLY}, ""),
        ({(TOPIC, "out"): READ_ONLY}, "WRITE on topic out"),
        ({(TOPIC, "out"): 0}, "READ and WRITE on topic out"),
        (
            dict.fromkeys(NEEDED, 0),
            "READ and WRITE on topic out; READ on group shop;"
            " WRITE on transactional ids that begin with shop.",
        ),
        ({(TOPIC, "another"): 0}, ""),
        ({}, ""),
    ],
    ids=[
        "everything allowed",
        "no word of ids",
        "no writing",
        "not to be seen",
        "nothing allowed",
        "another topic",
        "no word",
    ],
)
def test_what_is_needed_and_not_allowed_is_named(allowed: dict[tuple[str, str], int], missing: str):
    assert lacking(NEEDED, allowed) == missing


def test_a_worker_reads_what_it_writes_as_well_and_the_prefix_ends_in_a_dot():
    needed = needed_by_worker(Settings(group_id="shop"))
    assert needed[TOPIC, "order-placed"] == ("READ",)
    assert needed[TOPIC, "order-placed-dlt"] == ("READ", "WRITE")
    assert needed[IDS, "shop."] == ("WRITE",)
