"""A database that a test has had is as new for the next one, or goes."""

import asyncpg
import pytest

from tests.support.databases import Databases
from tests.support.shop import Shop


def having(databases: Databases, *statements: str) -> Shop:
    """A shop in which these were done, and whose database was given back since."""
    with databases.one() as url:
        shop = Shop(url)
        for statement in statements:
            shop.sql(statement)
    return shop


def test_rows_and_numbers_of_one_test_are_gone_in_the_same_database_for_the_next(databases: Databases):
    with databases.one() as url:
        first = Shop(url)
        first.sql("INSERT INTO categories (name) SELECT 'Some ' || i FROM generate_series(1, 5) i")
        first.stock_up({1: 10})
        first.sql("CREATE TEMPORARY TABLE passing (id int)")
    with databases.one() as url:
        assert url == first.database_url
        assert Shop(url).sql("SELECT FROM products UNION ALL SELECT FROM users") == []
        assert Shop(url).value("INSERT INTO categories (name) VALUES ('Another') RETURNING id") == 1
        assert len(Shop(url).sql("SELECT FROM alembic_version")) == 1


async def test_who_is_still_in_it_is_out_before_the_next_test(databases: Databases):
    with databases.one() as url:
        left = await asyncpg.connect(url)
        transaction = left.transaction()
        await transaction.start()
        await left.execute("INSERT INTO users (email, full_name) VALUES ('', '')")
    with databases.one() as again:
        assert again == url
        with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError)):
            await transaction.commit()
        left.terminate()


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE more (id int)",
        "ALTER TABLE users ADD COLUMN age int",
        "DROP INDEX ix_users_email_lower",
        "ALTER TABLE products DROP CONSTRAINT ck_products_stock_not_negative",
        "CREATE FUNCTION one() RETURNS int LANGUAGE sql RETURN 1",
        "REVOKE SELECT ON skips FROM PUBLIC; GRANT DELETE ON skips TO PUBLIC",
        "ALTER TABLE users ENABLE ROW LEVEL SECURITY",
        "CREATE SCHEMA other",
        "UPDATE alembic_version SET version_num = '0001'",
        "DROP TABLE alembic_version",
        "ANALYZE",
    ],
)
def test_one_in_which_more_than_rows_was_changed_is_gone(databases: Databases, statement: str):
    shop = having(databases, *statement.split("; "))
    assert_gone(databases, shop)


def test_one_with_settings_of_its_own_is_gone(databases: Databases):
    with databases.one() as url:
        name = url.rpartition("/")[2]
        Shop(url).sql(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    assert_gone(databases, Shop(url))


def assert_gone(databases: Databases, shop: Shop) -> None:
    with pytest.raises(asyncpg.InvalidCatalogNameError):
        shop.sql("SELECT 1")
    with databases.one() as url:
        assert url != shop.database_url
