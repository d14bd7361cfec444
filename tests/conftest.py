"""Fixtures only: nothing is imported from here. Servers are real, started once for the whole run."""

import functools
import gc
import os
import signal
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import AbstractContextManager, closing
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import pytest
from hypothesis import settings
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from bench.statements import Statements, counted
from db import migrate
from db.engine import create_engine, session_factory
from tests.support.browser import HOW_TO_INSTALL, Browser, find_browser
from tests.support.databases import Databases
from tests.support.java_cache import use_java_cache
from tests.support.kafka_topics import create_topics, delete_topics
from tests.support.little_shop import fill_the_stock
from tests.support.memory_folder import keep_temporary_folders_in_memory
from tests.support.order_worker import OrderWorker, order_worker_in
from tests.support.promises import Scene
from tests.support.roles import as_role, role_of_workers
from tests.support.sessions import Sessions
from tests.support.shop import Shop, run_apart
from tests.support.topic_names import PARTITIONS, TopicNames
from tests.support.worker_process import Workers, workers_in
from tests.support.worker_template import WorkerTemplate
from worker.sandbox.servers.errors import LocalServiceError
from worker.sandbox.servers.postgres import create_database, drop_database
from worker.sandbox.servers.services import Services, running_services

# Ctrl-C has to reach what is started here, also where a shell that runs the tests in the background has it
# ignored. (What is started gets the default back.)
signal.signal(signal.SIGINT, signal.default_int_handler)

# A busy machine is no counterexample.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")


def pytest_configure(config: pytest.Config) -> None:
    """What holds for the whole run, before the first test is collected."""
    if hasattr(config, "workerinput"):  # nothing of pytest's own stays there afterwards
        keep_temporary_folders_in_memory()
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        # By `nohup`. What a test starts would inherit it, and what has a handler is not inherited.
        signal.signal(signal.SIGHUP, lambda *_: None)


def _needs_a_server(item: pytest.Item) -> bool:
    return "unit" not in item.path.parts


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What is collected stays until the end: nobody looks for garbage in it, neither now nor later."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Those that need no server come first: after seconds they show whether it is worth to continue.

    Of several processes, one begins with those that take long: begun last, they would be waited for.
    """
    items.sort(key=_needs_a_server)
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: item.get_closest_marker("takes_long") is None)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Only before the first test that may need a server, so that the others do not wait for this."""
    if _needs_a_server(item):
        _prepare_quick_starts(make=hasattr(item.config, "workerinput"))


@functools.cache
def _prepare_quick_starts(*, make: bool) -> None:
    """To make the cache pays for many starts: where several processes share the tests."""
    use_java_cache(make=make)


@pytest.fixture(scope="session")
def services() -> Iterator[Services]:
    """Kafka and PostgreSQL: given, in Docker, or as local processes."""
    try:
        with running_services(
            given_kafka=os.environ.get("ORDER_WORKER_KAFKA_BOOTSTRAP_SERVERS"),
            given_database=os.environ.get("ORDER_WORKER_DATABASE_URL"),
            report=lambda sentence: print(sentence, flush=True),
            # The order of the commits, for the sequential model of tests.faults.
            postgres_settings={"track_commit_timestamp": "on", "max_prepared_transactions": "2"},
        ) as running:
            yield running
    except LocalServiceError as error:
        if os.environ.get("CI"):
            pytest.fail(f"no servers to test on: {error}", pytrace=False)
        pytest.skip(f"no servers to test on: {error}")


@pytest.fixture(scope="session")
def template_database(services: Services) -> Iterator[str]:
    """The name of an upgraded, empty database that each test's own is copied from."""
    name = f"template_{uuid4().hex[:8]}"
    url = create_database(services.database_url, name)

    async def upgrade() -> None:
        engine = create_engine(url)
        await migrate.upgrade(engine, "public")
        await engine.dispose()

    run_apart(upgrade())
    yield name
    drop_database(services.database_url, name)


@pytest.fixture(scope="session")
def worker_role(services: Services, template_database: str) -> Iterator[str]:
    """The role of the workers that are tested: it may do what they need, and nothing else."""
    url = urlunsplit(urlsplit(services.database_url)._replace(path=f"/{template_database}"))
    with role_of_workers(Shop(url)) as name:
        yield name


@pytest.fixture(scope="session")
def databases(services: Services, template_database: str, worker_role: str) -> Iterator[Databases]:
    """Upgraded, empty databases, in which the role of the workers has its rights."""
    assert worker_role
    databases = Databases(services.database_url, template_database)
    yield databases
    databases.close()


@pytest.fixture
def database_url(databases: Databases) -> Iterator[str]:
    """An upgraded, empty database."""
    with databases.one() as url:
        yield url


@pytest.fixture
def bare_database_url(services: Services) -> Iterator[str]:
    """A database without tables."""
    name = f"bare_{uuid4().hex[:12]}"
    yield create_database(services.database_url, name)
    drop_database(services.database_url, name)


@pytest.fixture
def shop(database_url: str) -> Iterator[Shop]:
    """The test's database, to fill and to look into."""
    with closing(Sessions(database_url)) as sessions:
        yield Shop(database_url, sessions)


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    """An engine on the test's database."""
    engine = create_engine(database_url, pool_size=10, max_overflow=50)
    yield engine
    await engine.dispose()


@pytest.fixture
async def session(engine: AsyncEngine) -> AsyncIterator[AsyncSession]:
    """One session, rolled back at the end: what a test wants others to see, it commits."""
    async with session_factory(engine)() as session:
        yield session


@pytest.fixture
def count_statements(engine: AsyncEngine) -> Callable[[], AbstractContextManager[Statements]]:
    """`with count_statements() as sent:` … `len(sent)`."""
    return lambda: counted(engine)


@pytest.fixture
async def little_shop(engine: AsyncEngine) -> None:
    """The rows that `tests.support.little_shop` describes."""
    await fill_the_stock(engine)


@pytest.fixture
def browser(tmp_path: Path) -> Browser:
    """A real browser with a profile of its own."""
    program = find_browser()
    if program is None:
        if os.environ.get("CI"):
            pytest.fail(HOW_TO_INSTALL, pytrace=False)
        pytest.skip(HOW_TO_INSTALL)
    return Browser(program, tmp_path / "browser")


@pytest.fixture
def topic_names() -> TopicNames:
    """Names of topics that nobody else uses; not created."""
    suffix = uuid4().hex[:8]
    return TopicNames(
        f"order-placed-{suffix}",
        f"order-confirmed-{suffix}",
        f"order-rejected-{suffix}",
        f"order-placed-dlt-{suffix}",
    )


@pytest.fixture
def topics(services: Services, topic_names: TopicNames) -> Iterator[TopicNames]:
    """The test's four topics, with four partitions each."""
    largest_bytes = {  # hostile values go beyond Kafka's default of 1 MiB; dead letters carry headers as well
        topic_names.order_placed: 2 * 1024 * 1024,
        topic_names.order_confirmed: 1024 * 1024,
        topic_names.order_rejected: 1024 * 1024,
        topic_names.dead_letter: 3 * 1024 * 1024,
    }
    create_topics(services.kafka_bootstrap_servers, largest_bytes, PARTITIONS)
    yield topic_names
    delete_topics(services.kafka_bootstrap_servers, largest_bytes)


@pytest.fixture
def env(services: Services, database_url: str, topic_names: TopicNames) -> dict[str, str]:
    """The environment of a worker or command: this test's database, topics and consumer group."""
    return {
        "ORDER_WORKER_KAFKA_BOOTSTRAP_SERVERS": services.kafka_bootstrap_servers,
        "ORDER_WORKER_DATABASE_URL": database_url,
        "ORDER_WORKER_GROUP_ID": f"group-{uuid4().hex[:8]}",
        "ORDER_WORKER_HTTP_PORT": "0",
        "ORDER_WORKER_HTTP_HOST": "127.0.0.1",
        "ORDER_WORKER_ORDER_PLACED_TOPIC": topic_names.order_placed,
        "ORDER_WORKER_ORDER_CONFIRMED_TOPIC": topic_names.order_confirmed,
        "ORDER_WORKER_ORDER_REJECTED_TOPIC": topic_names.order_rejected,
        "ORDER_WORKER_DEAD_LETTER_TOPIC": topic_names.dead_letter,
    }


@pytest.fixture(scope="session")
def worker_template(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerTemplate]:
    """What the processes of workers and commands are forked from."""
    template = WorkerTemplate(tmp_path_factory.mktemp("template"))
    yield template
    template.close()


@pytest.fixture
def workers(
    env: dict[str, str],
    topics: TopicNames,
    tmp_path: Path,
    worker_template: WorkerTemplate,
    worker_role: str,
) -> Iterator[Workers]:
    """Starts worker processes on the test's topics and database, with no more rights than they need."""
    url = as_role(env["ORDER_WORKER_DATABASE_URL"], worker_role)
    with workers_in(env | {"ORDER_WORKER_DATABASE_URL": url}, tmp_path, worker_template) as started:
        yield started


@pytest.fixture
def order_worker(env: dict[str, str], worker_template: WorkerTemplate) -> Iterator[OrderWorker]:
    """Calls the command in the test's environment."""
    with order_worker_in(env, worker_template) as command:
        yield command


@pytest.fixture
def lone_order_worker(worker_template: WorkerTemplate) -> Iterator[OrderWorker]:
    """Calls the command without a setting, and starts no server for it."""
    with order_worker_in({}, worker_template) as command:
        yield command


@pytest.fixture
def scene(services: Services, shop: Shop, topics: TopicNames, env: dict[str, str]) -> Scene:
    """One test's world: its shop, its topics and its group, with the promises to check at the end."""
    return Scene(services.kafka_bootstrap_servers, shop, topics, env["ORDER_WORKER_GROUP_ID"])
