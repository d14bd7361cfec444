"""How workers log in to Kafka: renewed while they run; a refusal that lasts ends them with 4."""

import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest

from tests.support.certificates import Certificate, issuing_in
from tests.support.deadline import eventually
from tests.support.guarded import (
    USER,
    AskingKafka,
    kafka_asking,
    kafka_asking_for_a_login,
    set_scram_password,
    set_stores,
    unsecured_token,
)
from tests.support.kafka_topics import create_topics
from tests.support.promises import Scene
from tests.support.renewing import (
    EXIT_REFUSED,
    PAUSE_SECONDS,
    SHORT,
    assert_no_secret,
    check_more_orders,
    replace_file,
)
from tests.support.topic_names import PARTITIONS, TopicNames
from tests.support.worker_process import WorkerProcess, Workers


@pytest.fixture(scope="module")
def asking_kafka() -> Iterator[AskingKafka]:
    with kafka_asking_for_a_login() as kafka:
        yield kafka


@pytest.fixture
def kafka_scene(asking_kafka: AskingKafka, scene: Scene, topic_names: TopicNames) -> Scene:
    """The scene with its topics on the Kafka that asks; the scene itself goes in by its open door."""
    return on_kafka(asking_kafka, scene, topic_names)


def on_kafka(kafka: AskingKafka, scene: Scene, topic_names: TopicNames) -> Scene:
    names = (
        topic_names.order_placed,
        topic_names.order_confirmed,
        topic_names.order_rejected,
        topic_names.dead_letter,
    )
    create_topics(kafka.broker.bootstrap_servers, dict.fromkeys(names), PARTITIONS)
    scene.shop.stock_up({1: 1_000_000})
    return replace(scene, kafka=kafka.broker.bootstrap_servers)


def start_on_kafka(kafka: AskingKafka, workers: Workers, **settings: str) -> WorkerProcess:
    return workers.start(
        kafka_bootstrap_servers=f"127.0.0.1:{kafka.port}",
        **{"retry_max_seconds": PAUSE_SECONDS, "kafka_security_protocol": "SASL_PLAINTEXT", **settings},
    )


def test_a_kafka_password_that_is_changed_with_its_file_is_used_without_a_restart(
    asking_kafka: AskingKafka, kafka_scene: Scene, workers: Workers, tmp_path: Path
):
    set_scram_password(asking_kafka, "first-one")
    file = replace_file(tmp_path / "password", "first-one\n")
    user = replace_file(tmp_path / "user", f"{USER}\n")
    worker = start_on_kafka(
        asking_kafka,
        workers,
        kafka_sasl_mechanism="SCRAM-SHA-256",
        kafka_sasl_username_file=str(user),
        kafka_sasl_password_file=str(file),
    ).wait_until_ready()
    placed: list[UUID] = []
    check_more_orders(kafka_scene, placed)

    set_scram_password(asking_kafka, "second-one")
    eventually(lambda: "does not let us in" in worker.log, 60, lambda: worker.get("/readyz")[1] + worker.log)
    assert f"ORDER_WORKER_KAFKA_SASL_PASSWORD_FILE={file}" in worker.get("/readyz")[1]
    replace_file(file, "second-one\n")
    eventually(lambda: worker.get("/readyz")[0] == 200, 40, lambda: worker.log[-3000:])
    check_more_orders(kafka_scene, placed)
    assert worker.stop() == 0
    assert_no_secret(worker, "first-one", "second-one")


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256"])
def test_a_wrong_kafka_password_at_the_start_ends_with_4(
    mechanism: str, asking_kafka: AskingKafka, workers: Workers
):
    worker = start_on_kafka(
        asking_kafka,
        workers,
        kafka_sasl_mechanism=mechanism,
        kafka_sasl_username=USER,
        kafka_sasl_password="mistaken",
    )
    assert worker.wait() == EXIT_REFUSED
    last = worker.log.splitlines()[-1]
    for said in (f"Kafka at 127.0.0.1:{asking_kafka.port}", "ORDER_WORKER_KAFKA_SASL_PASSWORD"):
        assert said in last
    assert_no_secret(worker, "mistaken")


def test_a_kafka_password_refused_for_too_long_ends_a_running_worker_with_4(
    asking_kafka: AskingKafka, kafka_scene: Scene, workers: Workers
):
    set_scram_password(asking_kafka, "first-one")
    worker = start_on_kafka(
        asking_kafka,
        workers,
        kafka_sasl_mechanism="SCRAM-SHA-256",
        kafka_sasl_username=USER,
        kafka_sasl_password="first-one",
        refused_limit_seconds=SHORT,
    ).wait_until_ready()
    check_more_orders(kafka_scene, [])
    set_scram_password(asking_kafka, "second-one")
    assert worker.wait(60) == EXIT_REFUSED, worker.log
    assert_no_secret(worker, "first-one", "second-one")


def test_tokens_of_a_file_are_read_for_each_connection(
    asking_kafka: AskingKafka, kafka_scene: Scene, workers: Workers, tmp_path: Path
):
    first, second = (unsecured_token(time.time() + seconds) for seconds in (3_600, 7_200))
    file = replace_file(tmp_path / "token", first + "\n")
    worker = start_on_kafka(
        asking_kafka, workers, kafka_sasl_mechanism="OAUTHBEARER", kafka_sasl_token_file=str(file)
    ).wait_until_ready()
    placed: list[UUID] = []
    check_more_orders(kafka_scene, placed)

    replace_file(file, unsecured_token(time.time() - 3_600))
    asking_kafka.cut()
    worker.wait_for_log("does not let us in")
    replace_file(file, second)
    eventually(lambda: worker.get("/readyz")[0] == 200, 40, lambda: worker.log[-3000:])
    check_more_orders(kafka_scene, placed)
    assert_no_secret(worker, first, second)


def test_a_token_may_come_from_a_command(
    asking_kafka: AskingKafka, kafka_scene: Scene, workers: Workers, tmp_path: Path
):
    script = tmp_path / "with a space.py"
    script.write_text(f"print({unsecured_token(time.time() + 3_600)!r})")
    worker = start_on_kafka(
        asking_kafka,
        workers,
        kafka_sasl_mechanism="OAUTHBEARER",
        kafka_sasl_token_command=f"{sys.executable} '{script}' --client-secret hunter2",
    ).wait_until_ready()
    check_more_orders(kafka_scene, [])
    assert worker.stop() == 0
    assert_no_secret(worker, "hunter2")


def test_a_token_that_kafka_refuses_ends_with_4(asking_kafka: AskingKafka, workers: Workers, tmp_path: Path):
    file = replace_file(tmp_path / "token", unsecured_token(time.time() - 3_600))
    worker = start_on_kafka(
        asking_kafka,
        workers,
        kafka_sasl_mechanism="OAUTHBEARER",
        kafka_sasl_token_file=str(file),
    )
    assert worker.wait() == EXIT_REFUSED, worker.log
    assert f"ORDER_WORKER_KAFKA_SASL_TOKEN_FILE={file}" in worker.log.splitlines()[-1]
    assert_no_secret(worker, file.read_text())


def test_certificates_renewed_for_kafka_are_used_without_a_restart(
    scene: Scene, workers: Workers, topic_names: TopicNames, tmp_path: Path
):
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
    # Each is server and client at once: all of it is renewed.
    old, new = (issuing_in(tmp_path / name)(USER) for name in ("old", "new"))
    authority, certificate, key = (tmp_path / name for name in ("ca.crt", "client.crt", "client.key"))
    for made in (old, new):
        (made.key.parent / "broker.pem").write_text(made.key.read_text() + made.certificate.read_text())

    def give(made: Certificate) -> None:
        replace_file(key, made.key.read_text())
        replace_file(certificate, made.certificate.read_text())
        replace_file(authority, made.certificate.read_text())

    give(old)
    settings = {
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(tmp_path / "old" / "broker.pem"),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(old.certificate),
        "ssl.client.auth": "required",
    }
    with kafka_asking("SSL", settings) as kafka:
        scene = on_kafka(kafka, scene, topic_names)
        worker = start_on_kafka(
            kafka,
            workers,
            kafka_security_protocol="SSL",
            kafka_ssl_cafile=str(authority),
            kafka_ssl_certfile=str(certificate),
            kafka_ssl_keyfile=str(key),
            refused_limit_seconds="1",  # what is wrong with TLS is no refusal
        ).wait_until_ready()
        placed: list[UUID] = []
        check_more_orders(scene, placed)
        set_stores(kafka, new, keystore=tmp_path / "new" / "broker.pem", truststore=new.certificate)
        worker.wait_for_log("no TLS with Kafka at")
        give(new)
        eventually(lambda: worker.get("/readyz")[0] == 200, 40, lambda: worker.log[-3000:])
        check_more_orders(scene, placed)
        assert worker.stop() == 0
