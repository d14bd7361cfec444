"""Workers and commands that are executed, as users do, and not forked."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.order_worker import OrderWorker
from tests.support.topic_names import TopicNames
from tests.support.worker_process import Workers, workers_in


@pytest.fixture
def workers(env: dict[str, str], topics: TopicNames, tmp_path: Path) -> Iterator[Workers]:
    """Started by their command, as users do."""
    with workers_in(env, tmp_path) as started:
        yield started


@pytest.fixture
def run(order_worker: OrderWorker) -> OrderWorker:
    """Executed, as users do."""
    return replace(order_worker.of("run"), template=None)
