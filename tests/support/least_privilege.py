"""A Kafka and a PostgreSQL that require TLS, passwords and rights, and a user with each role of deploy/."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import uuid4

from tests.support.certificates import issuing_in
from tests.support.guarded import kafka_asking, tls_before
from tests.support.kafka_acls import grant, granted
from tests.support.order_worker import ROOT, OrderWorker
from tests.support.promises import Scene
from tests.support.shop import Shop
from tests.support.topic_names import TopicNames
from worker.sandbox.servers.folders import data_folder
from worker.sandbox.servers.kafka import LocalKafka
from worker.sandbox.servers.postgres import LocalPostgres, installed_programs

ROLES: Final = ROOT / "deploy" / "postgres" / "roles.sql"
PASSWORD: Final = "p@ss: word"
_LOGIN: Final = "org.apache.kafka.common.security.plain.PlainLoginModule"
# By user: the role in PostgreSQL, and the principal in Kafka.
WHO: Final = {
    "worker": ("order_worker", "order-worker"),
    "reader": ("order_worker_reader", "order-reader"),
    "operator": ("order_worker_operator", "order-operator"),
    "migrator": ("order_worker_migrator", "order-setup"),
    "producer": ("order_worker_reader", "order-producer"),
}
_KAFKA_USERS: Final = sorted({user for _, user in WHO.values()})


@dataclass(frozen=True)
class SecuredServers:
    """Both require a login at these ports; `broker` and `postgres` have ports without one, for the tests."""

    kafka_port: int
    postgres_port: int
    broker: LocalKafka
    postgres: LocalPostgres
    certificate: Path  # of both
    password_file: Path

    def psql(self, database: str, role: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """psql in this database, past TLS, which its build does not have."""
        url = f"postgresql://{role}@127.0.0.1:{self.postgres.port}/{database}"
        return subprocess.run(
            [installed_programs() / "psql", "-X", "-q", *arguments, url],
            env={"PATH": os.environ["PATH"], "PGPASSWORD": PASSWORD},
            capture_output=True,
            text=True,
        )

    def login(self, who: str, database: str) -> dict[str, str]:
        """The settings with which somebody logs in, secrets as files."""
        role, user = WHO[who]
        address = f"127.0.0.1:{self.postgres_port}/{database}"
        settings = {
            "DATABASE_URL": f"postgresql://{role}@{address}?sslmode=verify-full&sslrootcert={self.certificate}",
            "DATABASE_PASSWORD_FILE": str(self.password_file),
            "KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{self.kafka_port}",
            "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
            "KAFKA_SASL_MECHANISM": "PLAIN",
            "KAFKA_SASL_USERNAME": user,
            "KAFKA_SASL_PASSWORD_FILE": str(self.password_file),
            "KAFKA_SSL_CAFILE": str(self.certificate),
        }
        return {f"ORDER_WORKER_{name}": value for name, value in settings.items()}


@contextmanager
def secured_servers() -> Iterator[SecuredServers]:
    """Both run, with certificates for this machine. Only the tests have rights yet."""
    with data_folder() as folder:
        server = issuing_in(folder)("server")
        (store := folder / "server.pem").write_text(server.key.read_text() + server.certificate.read_text())
        (password := folder / "password").write_text(PASSWORD)
        rules = folder / "pg_hba.conf"
        rules.write_text("host all postgres 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n")
        postgres = LocalPostgres(folder, settings={"hba_file": str(rules)})
        users = " ".join(f'user_{user}="{PASSWORD}"' for user in _KAFKA_USERS)
        listener = {
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(store),
            "sasl.enabled.mechanisms": "PLAIN",
            "plain.sasl.jaas.config": f"{_LOGIN} required {users};",
        }
        of_broker = {
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:ANONYMOUS",  # who uses the port without a login
        }
        try:
            postgres.start()
            with (
                tls_before(postgres, server) as postgres_port,
                kafka_asking("SASL_SSL", listener, of_broker) as kafka,
            ):
                yield SecuredServers(
                    *(kafka.port, postgres_port, kafka.broker, postgres, server.certificate, password)
                )
        finally:
            postgres.abandon()


@dataclass(frozen=True)
class SecuredShop:
    """A database, topics and a group, and what each role of deploy/ may do there, as the files grant it."""

    servers: SecuredServers
    database: str
    scene: Scene  # by the ports without a login

    @property
    def names(self) -> dict[str, str]:
        topics = self.scene.topics
        settings = {
            "GROUP_ID": self.scene.group_id,
            "HTTP_PORT": "0",
            "ORDER_PLACED_TOPIC": topics.order_placed,
            "ORDER_CONFIRMED_TOPIC": topics.order_confirmed,
            "ORDER_REJECTED_TOPIC": topics.order_rejected,
            "DEAD_LETTER_TOPIC": topics.dead_letter,
        }
        return {f"ORDER_WORKER_{name}": value for name, value in settings.items()}

    def env(self, who: str) -> dict[str, str]:
        return self.servers.login(who, self.database) | self.names

    def command(self, who: str) -> OrderWorker:
        return OrderWorker(self.env(who))

    def grant_roles(self, role: str) -> None:
        """Run roles.sql as this role of PostgreSQL."""
        ran = self.servers.psql(self.database, role, "-f", str(ROLES))
        assert (ran.returncode, ran.stderr) == (0, ""), ran

    def grant_acls(self, **other: str) -> None:
        """What acls.sh grants with the names of this shop."""
        grant(self.servers.broker.bootstrap_servers, granted(**{**self.names, **other}))


def secured_shop(servers: SecuredServers) -> SecuredShop:
    """One with roles, rights and tables, made as docs/security.md says, and with no topics yet."""
    suffix = uuid4().hex[:8]
    database = f"shop_{suffix}"
    shop = Shop(servers.postgres.create_database(database))
    kinds = ("placed", "confirmed", "rejected", "letters")
    topics = TopicNames(*(f"{kind}-{suffix}" for kind in kinds))
    scene = Scene(servers.broker.bootstrap_servers, shop, topics, f"group-{suffix}")
    made = SecuredShop(servers, database, scene)
    shop.sql(f'REVOKE ALL ON DATABASE "{database}" FROM PUBLIC')
    made.grant_roles("postgres")
    for role in sorted({role for role, _ in WHO.values()}):
        shop.sql(f"ALTER ROLE {role} PASSWORD '{PASSWORD}'")
    made.grant_acls()
    made.command("migrator").here("db", "upgrade").done()
    made.grant_roles("order_worker_migrator")
    return made
