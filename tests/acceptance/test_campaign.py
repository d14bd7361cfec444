"""The fault campaign, small: a run keeps every promise, and its verdict sees each one broken."""

from collections.abc import Iterator

import pytest

from tests.faults import campaign
from tests.faults.arena import Arena, arena, publish, subscriber
from tests.faults.verdict import find_violations
from tests.faults.workload import Kind, Record, make_workload
from tests.shop import Shop
from worker.local.services import Services

ORDERS = 400


@pytest.fixture(scope="module")
def template(services: Services) -> Iterator[str]:
    if Shop(services.database_url).value("SHOW track_commit_timestamp") != "on":
        pytest.skip("the given PostgreSQL does not keep commit times: set track_commit_timestamp = on")
    with campaign.template(services) as name:
        yield name


@pytest.mark.parametrize("fault", ["kill", "backends"])
def test_a_run_of_the_campaign_keeps_every_promise(services: Services, template: str, fault: str):
    run = campaign.run(services, template, fault, seed=3, orders=1_500)
    assert run.violations == ()
    assert run.injected >= 8


@pytest.fixture(scope="module")
def drained(services: Services, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arena]:
    """An arena after a quiet run, in which every promise was kept."""
    workload = make_workload(7, ORDERS, 4)
    folder = tmp_path_factory.mktemp("campaign")
    with arena(services, template, workload, seed=7, partitions=4, folder=folder) as there:
        with subscriber(there.scene) as seen:
            there.feed()
            there.until(lambda: there.scene.lag() == 0)
            there.dismiss()
            assert find_violations(there, seen) == []
        yield there


@pytest.mark.parametrize(
    ("breaking", "mending", "told"),
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
    ],
)
def test_the_verdict_sees_books_that_do_not_balance(drained: Arena, breaking: str, mending: str, told: str):
    drained.shop.sql(breaking)
    try:
        assert told in " ".join(violations(drained))
    finally:
        drained.shop.sql(mending)


def test_the_verdict_sees_an_outcome_told_twice(drained: Arena):
    first = drained.scene.confirmed()[0]
    again = Record(Kind.ORDER, first.partition, first.key, first.value, tuple(first.headers), None, None)
    publish(drained.scene.kafka, drained.scene.topics.order_confirmed, [again])
    (told,) = violations(drained)
    assert told == f"1 told more than once: {first.header('ce_subject')}"


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
    return find_violations(there, seen)
