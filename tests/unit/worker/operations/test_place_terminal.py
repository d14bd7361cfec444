"""What `place` says when it is done: how much, and where to see what becomes of it."""

import pytest

from worker.operations.place.place import Placed
from worker.operations.place.terminal import placed_text
from worker.settings import Settings

PLACED = Placed(1_000, 20, 0.5, "0b6f5c1e-5d0e-4c1e-9d0c-6a4a0c1d2e3f")


def test_it_names_the_lag_an_order_that_was_placed_and_the_page():
    lines = placed_text(PLACED, Settings()).splitlines()
    assert lines[0] == "1,000 placed in 0.50 s (2,040/s), 20 duplicates"
    assert lines[1:] == [
        "",
        "How far the workers are:   order-worker lag",
        "What became of one order:  order-worker explain 0b6f5c1e-5d0e-4c1e-9d0c-6a4a0c1d2e3f",
        "The operator's page:       http://127.0.0.1:8000/, while a worker runs here",
    ]


@pytest.mark.parametrize(
    ("host", "port", "page"),
    [
        ("0.0.0.0", 8123, "http://127.0.0.1:8123/,"),
        ("::", 8000, "http://[::1]:8000/,"),
        ("10.0.0.7", 8000, "http://10.0.0.7:8000/,"),
        ("127.0.0.1", 0, "at / of the address that a worker names in its log"),
    ],
)
def test_the_page_is_where_the_settings_put_it(host: str, port: int, page: str):
    said = placed_text(PLACED, Settings(http_host=host, http_port=port)).splitlines()[-1]
    assert said.partition(":       ")[2].startswith(page)
