"""Of a database URL a message shows host, port and name, and never a piece of a password."""

import errno

import pytest

from worker.database import database_address, database_trouble
from worker.settings import Settings

HIDDEN = "the address in ORDER_WORKER_DATABASE_URL"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://u:p@db.example:5432/shop?sslmode=require", "db.example:5432/shop"),
        ("postgresql://db.example/shop", "db.example/shop"),
        ("postgresql://u:p@[::1]:5432/shop", "[::1]:5432/shop"),
        ("postgresql://u:p@one:1,two:2/shop", "one:1,two:2/shop"),
        ("postgresql://u:p@/shop?host=/run/postgresql", "/run/postgresql/shop"),
        ("postgresql:///shop", "the local socket/shop"),
    ],
)
def test_an_address_is_shown(url: str, shown: str):
    assert database_address(url) == shown


MARKS = ["@", "#", "/", "?", ":", "@x#", "@x/", "@x?", "#x@", "/x@", "?x@", "[", "]@"]


@pytest.mark.parametrize("mark", MARKS)
def test_no_piece_of_a_password_with_odd_characters_is_shown(mark: str):
    for password in (f"my{mark}piece", f"piece{mark}my"):
        assert "piece" not in database_address(f"postgresql://shop:{password}@127.0.0.1:5432/shop")


@pytest.mark.parametrize("mark", ["#", "/", "?", ":", "["])
def test_nor_where_the_host_was_forgotten(mark: str):
    assert "piece" not in database_address(f"postgresql://shop:piece{mark}my/shop")


def test_what_cannot_be_an_address_is_hidden():
    assert database_address("postgresql://shop:secret") == HIDDEN


async def test_a_file_of_a_home_folder_that_is_somebody_elses_is_named():
    file = "/root/.postgresql/postgresql.key"
    trouble = await database_trouble(Settings(), PermissionError(errno.EACCES, "Permission denied", file))
    assert f"(permission denied: {file})" in str(trouble)
