"""Connections to the worker's HTTP port that ask for nothing take nothing from the orders."""

import selectors
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import psutil

from tests.support.builders import line, order_value
from tests.support.deadline import eventually
from tests.support.promises import Scene
from tests.support.worker_process import WorkerProcess, Workers
from worker.http.connections import HEAD_SECONDS, MOST_CONNECTIONS

HELD_OPEN = 1_200
PIECE_OF_A_HEAD = b"GET /livez HTTP/1.1\r\nHost: "


def address(worker: WorkerProcess) -> tuple[str, int]:
    return "127.0.0.1", int(worker.url.rpartition(":")[2])


@contextmanager
def held_open(worker: WorkerProcess, count: int) -> Iterator[None]:
    """So many connections, each with a piece of a request's head; one that ends is opened again."""
    ending = threading.Event()

    def hold() -> None:
        with selectors.DefaultSelector() as opened:
            while not ending.is_set():
                while len(opened.get_map()) < count:
                    with suppress(OSError):
                        one = socket.create_connection(address(worker), timeout=5)
                        one.sendall(PIECE_OF_A_HEAD)
                        opened.register(one, selectors.EVENT_READ)
                for key, _ in opened.select(0.1):
                    opened.unregister(key.fileobj)
                    key.fileobj.close()  # type: ignore[union-attr]
            for key in list(opened.get_map().values()):
                key.fileobj.close()  # type: ignore[union-attr]

    thread = threading.Thread(target=hold, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ending.set()
        thread.join()


def test_orders_and_probes_continue_beside_a_thousand_half_open_requests(scene: Scene, workers: Workers):
    scene.shop.stock_up({1: 1_000})
    worker = workers.start().wait_until_ready()
    process = psutil.Process(worker.process.pid)
    with held_open(worker, HELD_OPEN):
        eventually(lambda: len(process.net_connections()) > MOST_CONNECTIONS)
        scene.place([order_value(line(1)) for _ in range(200)])
        eventually(lambda: scene.shop.value("SELECT count(*) FROM order_outcomes") == 200, 60)
        for _ in range(20):
            assert worker.get("/livez")[0] == 200
        assert process.num_fds() < 3 * MOST_CONNECTIONS
    assert len(worker.log.splitlines()) < 200, worker.log[-2000:]


def test_a_connection_without_the_whole_head_of_a_request_ends(workers: Workers):
    worker = workers.start().wait_until_ready()
    pieces = (b"", PIECE_OF_A_HEAD, b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n" + PIECE_OF_A_HEAD)

    def seconds_open(sent: bytes) -> float:
        with socket.create_connection(address(worker), timeout=30) as connection:
            connection.sendall(sent)
            began = time.monotonic()
            with suppress(ConnectionResetError):
                while connection.recv(65_536):
                    pass
            return time.monotonic() - began

    with ThreadPoolExecutor() as at_once:
        for sent, seconds in zip(pieces, at_once.map(seconds_open, pieces), strict=True):
            assert HEAD_SECONDS - 1 < seconds < HEAD_SECONDS + 20, sent


def test_a_head_that_comes_byte_by_byte_has_no_more_time(workers: Workers):
    worker = workers.start().wait_until_ready()
    with socket.create_connection(address(worker), timeout=30) as connection:
        began = time.monotonic()
        with suppress(ConnectionError, TimeoutError):
            connection.settimeout(0.2)
            while time.monotonic() - began < HEAD_SECONDS + 20:
                connection.sendall(b"x")
                with suppress(TimeoutError):
                    if not connection.recv(1):
                        break
        assert time.monotonic() - began < HEAD_SECONDS + 15
