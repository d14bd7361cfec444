"""Roles of PostgreSQL with the rights that are listed, and no others."""

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

from tests.support.shop import Shop
from worker.rights import grants

SUPERUSER = "//postgres@"  # of the tests' servers


@contextmanager
def role_of_workers(shop: Shop) -> Iterator[str]:
    """A role with the rights of a worker, also in databases that are copied from this one."""
    name = f"worker_{uuid4().hex[:8]}"
    shop.sql(f"CREATE ROLE {name} LOGIN")
    try:
        for grant in grants(name):
            shop.sql(grant)
        yield name
    finally:
        shop.sql(f"DROP OWNED BY {name}")
        shop.sql(f"DROP ROLE {name}")


def as_role(database_url: str, role: str) -> str:
    """The URL of the same database for this role; unchanged where a given server has another superuser."""
    return database_url.replace(SUPERUSER, f"//{role}@")
