"""PostgreSQL's password and certificate, renewed while workers run; a refusal that lasts ends them with 4."""

import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from tests.support.certificates import Certificate, issuing_in
from tests.support.deadline import eventually
from tests.support.guarded import (
    USER,
    end_connections,
    postgres_asking,
    set_password,
    tls_before,
)
from tests.support.promises import Scene
from tests.support.renewing import (
    EXIT_REFUSED,
    PAUSE_SECONDS,
    SHORT,
    assert_no_secret,
    check_more_orders,
    place_some,
    replace_file,
)
from tests.support.shop import Shop
from tests.support.worker_process import WorkerProcess, Workers
from worker.sandbox.servers.postgres import LocalPostgres


@pytest.fixture(scope="module")
def asking_postgres() -> Iterator[LocalPostgres]:
    with postgres_asking("scram-sha-256") as postgres:
        yield postgres


@pytest.fixture
def database_scene(asking_postgres: LocalPostgres, scene: Scene) -> Scene:
    """The scene with its shop in the PostgreSQL that asks."""
    name = f"test_{uuid4().hex[:12]}"
    shop = Shop(asking_postgres.create_database(name, template="postgres"))
    shop.stock_up({1: 1_000_000})
    return replace(scene, shop=shop)


def guarded_url(postgres: LocalPostgres, scene: Scene, more: str = "") -> str:
    database = scene.shop.database_url.rpartition("/")[2]
    return f"postgresql://{USER}{more}@127.0.0.1:{postgres.port}/{database}"


def start(workers: Workers, **settings: str) -> WorkerProcess:
    del workers.environment["ORDER_WORKER_DATABASE_URL"]
    return workers.start(retry_max_seconds=PAUSE_SECONDS, **settings)


@pytest.mark.parametrize("kind", ["url", "passfile"])
def test_a_password_that_is_changed_with_its_file_costs_a_pause(
    kind: str, asking_postgres: LocalPostgres, database_scene: Scene, workers: Workers, tmp_path: Path
):
    file = tmp_path / "secret"

    def content(password: str) -> str:
        if kind == "passfile":
            return f"*:*:*:*:{password}\n"
        return guarded_url(asking_postgres, database_scene, f":{password}") + "\n"

    set_password(asking_postgres, "first-one")
    replace_file(file, content("first-one")).chmod(0o600)
    url = guarded_url(asking_postgres, database_scene)
    settings = {
        "url": {"database_url_file": str(file)},
        "passfile": {"database_url": f"{url}?passfile={file}"},
    }[kind]
    worker = start(workers, **settings).wait_until_ready()
    placed: list[UUID] = []
    check_more_orders(database_scene, placed)

    set_password(asking_postgres, "second-one")
    eventually(lambda: worker.get("/readyz")[0] == 503)
    placed.extend(place_some(database_scene))
    file.write_text("")  # as one that is half written
    eventually(lambda: "password authentication failed" in worker.log or "empty" in worker.log)
    replace_file(file, content("second-one")).chmod(0o600)
    eventually(lambda: worker.get("/readyz")[0] == 200, 15)
    check_more_orders(database_scene, placed)
    assert worker.stop() == 0
    assert_no_secret(worker, "first-one", "second-one")


def test_a_wrong_password_at_the_start_is_reported_at_once_and_ends_with_4(
    asking_postgres: LocalPostgres, database_scene: Scene, workers: Workers, tmp_path: Path
):
    set_password(asking_postgres, "right")
    file = replace_file(tmp_path / "password", "mistaken")
    url = guarded_url(asking_postgres, database_scene)
    worker = start(workers, database_url=url, database_password_file=str(file))
    assert worker.wait() == EXIT_REFUSED
    last = worker.log.splitlines()[-1]
    assert last.startswith(f"error: PostgreSQL at 127.0.0.1:{asking_postgres.port}/")
    for said in (f'user "{USER}"', f"ORDER_WORKER_DATABASE_PASSWORD_FILE={file}"):
        assert said in last
    assert_no_secret(worker, "mistaken", "right")


def test_a_password_refused_for_too_long_ends_running_workers_with_4(
    asking_postgres: LocalPostgres,
    database_scene: Scene,
    workers: Workers,
):
    set_password(asking_postgres, "first-one")
    url = guarded_url(asking_postgres, database_scene, ":first-one")
    command = [sys.executable, "-m", "worker", "run", "--workers", "2"]
    del workers.environment["ORDER_WORKER_DATABASE_URL"]
    worker = workers.start(
        *command, database_url=url, refused_limit_seconds=SHORT, retry_max_seconds=PAUSE_SECONDS
    )
    eventually(lambda: worker.log.count("health, metrics and docs on") == 2, 60, lambda: worker.log)
    place_some(database_scene)
    database_scene.wait_until_drained()

    set_password(asking_postgres, "second-one")
    worker.wait_for_log("does not let us in")
    assert worker.wait(60) == EXIT_REFUSED, worker.log
    assert "ORDER_WORKER_REFUSED_LIMIT_SECONDS" in worker.log
    assert_no_secret(worker, "first-one", "second-one")


def test_a_database_that_is_away_is_no_refusal(
    asking_postgres: LocalPostgres, database_scene: Scene, workers: Workers
):
    set_password(asking_postgres, "right")
    url = guarded_url(asking_postgres, database_scene, ":right")
    worker = start(workers, database_url=url, refused_limit_seconds="1").wait_until_ready()
    asking_postgres.crash()
    try:
        eventually(lambda: worker.get("/readyz")[0] == 503)
        away_until = time.monotonic() + 4
        eventually(lambda: time.monotonic() > away_until)
        assert worker.process.poll() is None
    finally:
        asking_postgres.start()
    check_more_orders(database_scene, [])


def test_a_certificate_renewed_for_postgres_is_used_without_a_restart(
    scene: Scene, workers: Workers, tmp_path: Path
):
    for name in ("server", "old", "new"):
        (tmp_path / name).mkdir()
    server = issuing_in(tmp_path / "server")("server")
    old, new = (issuing_in(tmp_path / name)(USER) for name in ("old", "new"))
    authorities = tmp_path / "authorities.crt"
    authorities.write_text(old.certificate.read_text())
    certificate, key = tmp_path / "client.crt", tmp_path / "client.key"

    def give(found: Certificate) -> None:
        replace_file(key, found.key.read_text()).chmod(0o600)
        replace_file(certificate, found.certificate.read_text())

    give(old)
    with postgres_asking("trust") as postgres, tls_before(postgres, server, authorities) as port:
        scene = replace(scene, shop=Shop(postgres.url))
        scene.shop.stock_up({1: 1_000_000})
        url = f"postgresql://{USER}@127.0.0.1:{port}/postgres?sslmode=verify-full"
        url += f"&sslrootcert={server.certificate}&sslcert={certificate}&sslkey={key}"
        worker = start(workers, database_url=url).wait_until_ready()
        placed: list[UUID] = []
        check_more_orders(scene, placed)
        authorities.write_text(new.certificate.read_text())
        end_connections(postgres)
        eventually(lambda: worker.get("/readyz")[0] == 503)
        give(new)
        eventually(lambda: worker.get("/readyz")[0] == 200, 15)
        check_more_orders(scene, placed)
        assert worker.stop() == 0
