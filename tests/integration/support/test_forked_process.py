"""A command that is forked from the template is to a test what an executed one is."""

import signal
from dataclasses import replace

import pytest

from tests.support.builders import order_value
from tests.support.forked_process import ForkedProcess
from tests.support.order_worker import OrderWorker, ended
from tests.support.terminal import shown_at

CHECK = ("check", "--contract-only", "-")


@pytest.fixture
def executed(lone_order_worker: OrderWorker) -> OrderWorker:
    return replace(lone_order_worker, template=None)


@pytest.mark.parametrize("given", [order_value(), b"{}", b""])
def test_it_reads_and_writes_and_ends_alike(
    lone_order_worker: OrderWorker, executed: OrderWorker, given: bytes
):
    assert lone_order_worker(*CHECK, stdin=given) == executed(*CHECK, stdin=given)


def test_it_finds_the_terminal_alike(lone_order_worker: OrderWorker, executed: OrderWorker):
    shown = [shown_at(one, 60, ["orders", "--help"]) for one in (lone_order_worker, executed)]
    assert shown[0] == shown[1]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_it_ends_by_a_signal_alike(lone_order_worker: OrderWorker, number: int):
    process = lone_order_worker.start(*CHECK)
    assert isinstance(process, ForkedProcess)
    process.send_signal(number)
    assert ended(process).code in (-number, 128 + number)


def test_one_whose_interpreter_is_set_otherwise_is_executed(lone_order_worker: OrderWorker):
    process = lone_order_worker.start("--help", PYTHONIOENCODING="ascii")
    assert not isinstance(process, ForkedProcess)
    assert "?" in ended(process).done().out
