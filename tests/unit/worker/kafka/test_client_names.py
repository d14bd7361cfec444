"""A worker's version and name, as the group shows them."""

import pytest

from worker import __version__
from worker.kafka.client_names import client_id, is_worker, name_of, version_of


@pytest.mark.parametrize("name", ["", "shop-3", "host:8000"])
def test_a_worker_shows_its_version_and_its_name(name: str):
    assert (version_of(client_id(name)), name_of(client_id(name))) == (__version__, name)


@pytest.mark.parametrize("other", ["order-worker", "aiokafka-0.14.0", "", "another@shop-3"])
def test_others_show_neither(other: str):
    assert (version_of(other), name_of(other)) == (None, "")


@pytest.mark.parametrize("ours", ["order-worker", "order-worker-0.0.1", client_id("shop-3")])
def test_a_worker_of_any_version_is_known_for_one(ours: str):
    assert is_worker(ours)


@pytest.mark.parametrize("other", ["console-consumer", "order-workers", "", "rdkafka"])
def test_other_members_of_the_group_are_no_workers(other: str):
    assert not is_worker(other)


def test_a_name_stays_the_same_over_a_new_version():
    assert name_of("order-worker-0.0.1@shop-3") == "shop-3"
