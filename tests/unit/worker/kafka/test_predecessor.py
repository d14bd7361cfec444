import socket

import pytest

from worker.errors import CommandError
from worker.kafka.predecessor import worker_name
from worker.settings import read_settings


def test_a_worker_is_named_by_its_instance_id():
    assert worker_name(read_settings(instance_id="shop-3")) == "shop-3"


def test_without_one_it_is_named_by_host_and_port():
    assert worker_name(read_settings(http_port=8001)) == f"{socket.gethostname()}:8001"


def test_with_any_free_port_it_has_no_name():
    assert worker_name(read_settings(http_port=0)) == ""


@pytest.mark.parametrize("name", ["a b", "a@b", "a\nb", "a" * 201], ids=["space", "at", "newline", "long"])
def test_a_wrong_name_is_refused_with_its_variable(name: str):
    with pytest.raises(CommandError, match="ORDER_WORKER_INSTANCE_ID"):
        read_settings(instance_id=name)
