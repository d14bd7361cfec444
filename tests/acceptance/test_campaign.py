"""The verdict of the fault campaign sees each promise broken. (The campaign itself: `make faults`.)"""

import os
from collections.abc import Iterator

import pytest

from tests.faults.along import Subscriber, subscriber
from tests.faults.arena import Arena, arena
from tests.faults.publishing import publish
from tests.faults.site import Site, running_site
from tests.faults.verdict import find_violations
from tests.faults.workload import Kind, Record, make_workload
from worker.sandbox.servers import LocalServiceError

pytestmark = [
    pytest.mark.guarantee_1,
    pytest.mark.guarantee_2,
    pytest.mark.guarantee_3,
    pytest.mark.guarantee_4,
]

ORDERS = 400


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    try:
        with running_site() as running:
            yield running
    except LocalServiceError as error:
        if os.environ.get("CI"):
            pytest.fail(f"no servers to test on: {error}", pytrace=False)
        pytest.skip(f"no servers to test on: {error}")


@pytest.fixture(scope="module")
def drained(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arena]:
    """An arena after a quiet run, in which every promise was kept."""
    workload = make_workload(7, ORDERS, 4)
    folder = tmp_path_factory.mktemp("campaign")
    with arena(site, workload, seed=7, partitions=4, folder=folder) as there:
        with subscriber(there.scene) as along:
            there.feed()
            there.until(lambda: there.scene.lag() == 0)
            there.dismiss()
            assert find_violations(there, along) == []
        yield there


@pytest.mark.parametrize(
    ("breaking", "mending", "violation"),
    [
        (
            "UPDATE products SET stock_quantity = stock_quantity + 1 WHERE id = 1",
            "UPDATE products SET stock_quantity = stock_quantity - 1 WHERE id = 1",
            "stock is not conserved",
        ),
        (
            "UPDATE orders SET total_amount = total_amount + 1",
            "UPDATE orders SET total_amount = total_amount - 1",
            "items and total disagree",
        ),
        (
            "UPDATE order_outcomes SET source_offset = source_offset + 1000000",
            "UPDATE order_outcomes SET source_offset = source_offset - 1000000",
            "decided from a place where it does not lie",
        ),
        (
            "INSERT INTO skips (topic, partition, kind, from_offset, to_offset, requested_by, note)"
            " VALUES ('any', 0, 'skipped', 3, 4, 'me', 'by hand')",
            "DELETE FROM skips",
            "skipped, though it could be decided",
        ),
    ],
)
def test_the_verdict_sees_what_is_wrong_in_the_tables(
    drained: Arena, breaking: str, mending: str, violation: str
):
    drained.shop.sql(breaking)
    try:
        assert violation in " ".join(violations(drained))
    finally:
        drained.shop.sql(mending)


def test_the_verdict_sees_an_outcome_published_twice(drained: Arena):
    # A test before this one may have written ledger rows again, which puts their commits in another order.
    before = violations(drained)
    first = drained.scene.confirmed()[0]
    again = Record(Kind.ORDER, first.partition, first.key, first.value, tuple(first.headers), None, None)
    publish(drained.scene.kafka, drained.scene.topics.order_confirmed, [again])
    (violation,) = set(violations(drained)) - set(before)
    assert violation == f"1 published too often: {first.header('ce_subject')}"


def violations(there: Arena) -> list[str]:
    """The verdict, for a subscriber who saw what there is."""
    seen = [
        (topic, m.partition, m.offset, m.value)
        for topic, messages in (
            (there.scene.topics.order_confirmed, there.scene.confirmed()),
            (there.scene.topics.order_rejected, there.scene.rejected()),
        )
        for m in messages
    ]
    return find_violations(there, Subscriber(seen))
