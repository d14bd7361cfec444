"""A Kafka and a PostgreSQL that require a login, each with another port without one, for the tests."""

import json
import socket
import ssl
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Thread

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from confluent_kafka.admin import (
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from db import migrate
from db.engine import create_engine
from tests.faults.proxy import Proxy
from tests.support.certificates import Certificate
from tests.support.deadline import eventually
from tests.support.kafka_topics import admin_client
from tests.support.shop import Shop, run_apart
from worker.sandbox.servers.folders import data_folder
from worker.sandbox.servers.kafka import LocalKafka
from worker.sandbox.servers.ports import free_port
from worker.sandbox.servers.postgres import LocalPostgres

USER = "shop"
_MODULES = "org.apache.kafka.common.security"
_SASL = {
    "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,OAUTHBEARER",
    "plain.sasl.jaas.config": f'{_MODULES}.plain.PlainLoginModule required user_{USER}="plain-password";',
    "scram-sha-256.sasl.jaas.config": f"{_MODULES}.scram.ScramLoginModule required;",
    "oauthbearer.sasl.jaas.config": f"{_MODULES}.oauthbearer.OAuthBearerLoginModule required"
    ' unsecuredLoginStringClaim_sub="broker";',
    "oauthbearer.sasl.server.callback.handler.class": f"{_MODULES}.oauthbearer.internals.unsecured"
    ".OAuthBearerUnsecuredValidatorCallbackHandler",
}


@dataclass(frozen=True)
class AskingKafka:
    """`port` requires a login, `broker.port` does not. After `cut` each client has to log in once more."""

    broker: LocalKafka
    port: int
    cut: Callable[[], None]


@contextmanager
def kafka_asking(
    protocol: str, settings: dict[str, str], of_broker: Mapping[str, str] | None = None
) -> Iterator[AskingKafka]:
    """It runs; `settings` are those of the listener that asks, `of_broker` those of both listeners."""
    asking, port = {f"listener.name.proxied.{name}": value for name, value in settings.items()}, free_port()
    with data_folder() as folder:
        broker = LocalKafka(
            folder, proxy_port=port, proxied_protocol=protocol, settings={**asking, **(of_broker or {})}
        )
        assert broker.proxied_port
        try:
            broker.start()
            with Proxy(broker.proxied_port, port=port) as proxy:
                yield AskingKafka(broker, port, proxy.cut)
        finally:
            broker.abandon()


@contextmanager
def kafka_asking_for_a_login() -> Iterator[AskingKafka]:
    """By SASL: PLAIN, SCRAM-SHA-256 (`set_scram_password`), OAUTHBEARER (`unsecured_token`)."""
    with kafka_asking("SASL_PLAINTEXT", _SASL) as kafka:
        yield kafka


def set_scram_password(kafka: AskingKafka, password: str) -> None:
    """Afterwards each client has to log in once more."""
    info = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_256, 4096)
    change = UserScramCredentialUpsertion(USER, info, password.encode())
    admin = admin_client(kafka.broker.bootstrap_servers)
    for done in admin.alter_user_scram_credentials([change]).values():
        done.result(60)
    # Kafka acknowledges it before it applies it.
    eventually(lambda: run_apart(_lets_in(kafka.port, password)), 60)
    kafka.cut()


async def _lets_in(port: int, password: str) -> bool:
    admin = AIOKafkaAdminClient(
        bootstrap_servers=f"127.0.0.1:{port}",
        security_protocol="SASL_PLAINTEXT",
        sasl_mechanism="SCRAM-SHA-256",
        sasl_plain_username=USER,
        sasl_plain_password=password,
    )
    try:
        await admin.start()
    except KafkaError:
        return False
    finally:
        await admin.close()
    return True


def set_stores(kafka: AskingKafka, certificate: Certificate, **files: Path) -> None:
    """Give the listener with the login other files. Each client then has to log in once more.

    `certificate`: the one that it shows from then on.
    """
    changes = [
        ConfigEntry(
            f"listener.name.proxied.ssl.{kind}.location",
            str(file),
            incremental_operation=AlterConfigOpType.SET,
        )
        for kind, file in files.items()
    ]
    broker = ConfigResource(ConfigResource.Type.BROKER, "1", incremental_configs=changes)
    for done in admin_client(kafka.broker.bootstrap_servers).incremental_alter_configs([broker]).values():
        done.result(60)
    # Kafka acknowledges it before it is in effect.
    wanted = ssl.PEM_cert_to_DER_cert(certificate.certificate.read_text())
    eventually(lambda: _shown(kafka.port) == wanted, 60)
    kafka.cut()


def _shown(port: int) -> bytes:
    return ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate(("127.0.0.1", port), timeout=10))


def unsecured_token(ends_at: float) -> str:
    """A token that nobody has signed, valid until then, in seconds since 1970."""
    claims = {"sub": USER, "iat": int(ends_at) - 86_400, "exp": int(ends_at)}
    parts = (json.dumps(part).encode() for part in ({"alg": "none"}, claims))
    return ".".join(urlsafe_b64encode(part).decode().rstrip("=") for part in parts) + "."


@contextmanager
def postgres_asking(how: str) -> Iterator[LocalPostgres]:
    """It runs, with tables. The user `shop` is asked `how` (`trust`, say), `postgres` for nothing."""
    with data_folder() as folder:
        rules = folder / "pg_hba.conf"
        rules.write_text(f"host all {USER} 127.0.0.1/32 {how}\nhost all postgres 127.0.0.1/32 trust\n")
        postgres = LocalPostgres(folder, settings={"hba_file": str(rules)})
        try:
            postgres.start()
            Shop(postgres.url).sql(f"CREATE ROLE {USER} LOGIN SUPERUSER")
            run_apart(_upgrade(postgres.url))
            yield postgres
        finally:
            postgres.abandon()


@contextmanager
def tls_before(
    postgres: LocalPostgres, server: Certificate, authorities: Path | None = None
) -> Iterator[int]:
    """The port of a TLS proxy for PostgreSQL, whose own build has no TLS.

    It lets in clients with a certificate of these authorities (the file is read for each connection);
    without a file, every client.
    """

    def answer(client: socket.socket) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*server)
        if authorities:
            context.load_verify_locations(authorities)
            context.verify_mode = ssl.CERT_REQUIRED
        with suppress(OSError), socket.create_connection(("127.0.0.1", postgres.port)) as behind, client:
            client.recv(8)
            client.sendall(b"S")
            with context.wrap_socket(client, server_side=True) as secured:
                back = Thread(target=_hand_on, args=(behind, secured), daemon=True)
                back.start()
                _hand_on(secured, behind)
                back.join()

    def accept() -> None:
        with suppress(OSError):
            while True:
                Thread(target=answer, args=(listening.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        Thread(target=accept, daemon=True).start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)


def _hand_on(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65_536):
            target.sendall(data)
    for end in (source, target):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


async def _upgrade(url: str) -> None:
    engine = create_engine(url)
    await migrate.upgrade(engine, "public")
    await engine.dispose()


def set_password(postgres: LocalPostgres, password: str) -> None:
    """And end all connections, as an administrator does who changes a password in an emergency."""
    shop = Shop(postgres.url)
    shop.sql(f"ALTER ROLE {USER} PASSWORD '{password}'")
    end_connections(postgres)


def end_connections(postgres: LocalPostgres) -> None:
    Shop(postgres.url).sql(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{USER}'")
