"""A worker's version, as the group tells it."""

from worker import __version__
from worker.kafka.client_names import WORKER_CLIENT_ID, version_of


def test_a_worker_tells_its_version_and_others_tell_none():
    assert version_of(WORKER_CLIENT_ID) == __version__
    assert [version_of(name) for name in ("order-worker", "aiokafka-0.14.0", "")] == [None] * 3
