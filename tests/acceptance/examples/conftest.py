"""What the tests of the examples share."""

from collections.abc import Callable

import pytest

from tests.support.shop import Shop


@pytest.fixture
def commits_fail(shop: Shop) -> Callable[[int], None]:
    """Makes the next commits of a new user fail, so many of them: the insert itself still goes through."""

    def fail(times: int) -> None:
        shop.sql("CREATE SEQUENCE commits")
        # A sequence counts on although the transaction is rolled back.
        shop.sql(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            f" IF nextval('commits') <= {times} THEN RAISE EXCEPTION 'refused at the commit'; END IF;"
            " RETURN NULL; END $$"
        )
        shop.sql(
            "CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON users DEFERRABLE INITIALLY DEFERRED"
            " FOR EACH ROW EXECUTE FUNCTION refuse()"
        )

    return fail
