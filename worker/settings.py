"""Every setting, read from the environment (prefix `ORDER_WORKER_`) and from `.env`."""

import os
import re
import ssl
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, DotEnvSettingsSource, SettingsConfigDict

from contracts.topics import DEAD_LETTER, ORDER_CONFIRMED, ORDER_PLACED, ORDER_REJECTED, Topics
from worker.errors import CommandError
from worker.tls import reason_of_tls, unreadable

Port = Annotated[int, Field(ge=0, le=65_535)]
TopicName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9._-]{1,249}$")]


_PREFIX: Final = "ORDER_WORKER_"
# Of the demo and the tests' servers.
_NO_SETTINGS: Final = ("NO_DOCKER", "CACHE_DIR", "MAVEN_REPOSITORY", "DEMO_SECONDS")
# What Kubernetes gives each container of a namespace that has a service called order-worker.
_OF_KUBERNETES: Final = re.compile(
    r"SERVICE_(HOST|PORT(_.*)?)|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?"
)


class Settings(BaseSettings):
    """What an operator can set. Immutable once read."""

    model_config = SettingsConfigDict(
        env_prefix=_PREFIX, env_file=".env", extra="ignore", frozen=True, env_ignore_empty=True
    )

    kafka_bootstrap_servers: str = Field(
        "127.0.0.1:9092", min_length=1, description="host:port, comma separated"
    )
    database_url: SecretStr = Field(
        SecretStr("postgresql://postgres@127.0.0.1:5432/postgres"),
        description="postgresql://user:password@host:port/name, with libpq's parameters",
    )
    database_schema: str = Field("public", min_length=1, max_length=63, description="one shop, one schema")
    group_id: str = Field(
        "order-worker", min_length=1, description="consumer group; also the start of transactional ids"
    )
    http_host: str = Field("127.0.0.1", description="address of health, metrics and docs")
    http_port: Port = Field(8000, description="0: any free port")

    order_placed_topic: TopicName = Field(ORDER_PLACED, description="input")
    order_confirmed_topic: TopicName = Field(ORDER_CONFIRMED, description="outcome")
    order_rejected_topic: TopicName = Field(ORDER_REJECTED, description="outcome")
    dead_letter_topic: TopicName = Field(DEAD_LETTER, description="records that could not be decided")

    # The more orders, the fewer reads and updates of one product, and the less of what any batch costs. With
    # 4,400 an order took 53 to 56 µs of CPU time of worker, PostgreSQL and Kafka, with 8,000 46 to 50, with
    # 12,000 as much and 13 MiB more (three rounds, two processes, 5,000 products).
    batch_max_records: int = Field(8_000, ge=1, le=20_000, description="records decided in one transaction")
    batch_max_bytes: int = Field(
        3 * 1024 * 1024, ge=1_024, description="bytes of values decided in one transaction; bounds the memory"
    )
    batch_timeout_seconds: float = Field(
        30.0, gt=0, description="a database transaction that takes longer is given up and redone"
    )
    message_max_bytes: int = Field(256 * 1024, ge=1_024, description="a larger value is a dead letter")

    session_timeout_ms: int = Field(
        10_000, ge=1_000, le=1_800_000, description="a silent worker loses its partitions after this"
    )
    transaction_timeout_ms: int = Field(
        60_000, ge=1_000, description="an abandoned Kafka transaction ends after this"
    )
    request_timeout_ms: int = Field(15_000, ge=1_000, description="one request to Kafka")
    statement_timeout_ms: int = Field(20_000, ge=100, description="one SQL statement")
    lock_timeout_ms: int = Field(5_000, ge=100, description="waiting for one row or lock")
    shutdown_timeout_seconds: float = Field(
        25.0, gt=0, description="for the batch in flight, then exit at once"
    )
    retry_max_seconds: float = Field(15.0, gt=0, description="longest pause between two attempts")
    stall_limit_seconds: float = Field(
        300.0, gt=0, description="no sign of life for so long with work to do: exit 3"
    )

    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field("PLAINTEXT")
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field("PLAIN")
    kafka_sasl_username: str | None = None
    kafka_sasl_password: SecretStr | None = None
    kafka_ssl_cafile: Path | None = Field(None, description="CA certificates; default: the system's")
    kafka_ssl_certfile: Path | None = Field(None, description="client certificate")
    kafka_ssl_keyfile: Path | None = Field(None, description="client key")
    kafka_ssl_key_password: SecretStr | None = Field(
        None, description="of the client key, if it is encrypted"
    )

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: Literal["text", "json"] = "text"

    @model_validator(mode="after")
    def _consistent(self) -> "Settings":
        if len(set(self.topics.all)) < len(self.topics.all):
            raise ValueError("the four topics must have different names")
        if self.kafka_security_protocol.startswith("SASL") and not (
            self.kafka_sasl_username and self.kafka_sasl_password
        ):
            raise ValueError(
                "SASL needs ORDER_WORKER_KAFKA_SASL_USERNAME and ORDER_WORKER_KAFKA_SASL_PASSWORD"
            )
        return self

    @property
    def rebalance_timeout_ms(self) -> int:
        """Above the longest batch, so that a rebalance waits for the batch in flight to end."""
        return int(self.batch_timeout_seconds * 1_000) + self.transaction_timeout_ms

    @property
    def topics(self) -> Topics:
        return Topics(
            self.order_placed_topic,
            self.order_confirmed_topic,
            self.order_rejected_topic,
            self.dead_letter_topic,
        )

    def kafka_client_options(self) -> dict[str, Any]:
        """What every aiokafka client needs: servers, TLS and SASL."""
        options: dict[str, Any] = {
            "bootstrap_servers": self.kafka_bootstrap_servers,
            "security_protocol": self.kafka_security_protocol,
            "request_timeout_ms": self.request_timeout_ms,
        }
        if self.kafka_security_protocol.endswith("SSL"):
            options["ssl_context"] = self._ssl_context()
        if self.kafka_security_protocol.startswith("SASL"):
            assert self.kafka_sasl_password is not None
            options["sasl_mechanism"] = self.kafka_sasl_mechanism
            options["sasl_plain_username"] = self.kafka_sasl_username
            options["sasl_plain_password"] = self.kafka_sasl_password.get_secret_value()
        return options

    def _ssl_context(self) -> ssl.SSLContext:
        files = {
            "ORDER_WORKER_KAFKA_SSL_CAFILE": self.kafka_ssl_cafile,
            "ORDER_WORKER_KAFKA_SSL_CERTFILE": self.kafka_ssl_certfile,
            "ORDER_WORKER_KAFKA_SSL_KEYFILE": self.kafka_ssl_keyfile,
        }
        if why := unreadable((name, path) for name, path in files.items() if path):
            raise CommandError(f"cannot read the TLS files for Kafka: {why}", code="settings")
        names = "ORDER_WORKER_KAFKA_SSL_CAFILE"
        try:
            context = ssl.create_default_context(cafile=self.kafka_ssl_cafile)
            if self.kafka_ssl_certfile:
                names = "ORDER_WORKER_KAFKA_SSL_CERTFILE, ORDER_WORKER_KAFKA_SSL_KEYFILE and …_KEY_PASSWORD"
                context.load_cert_chain(self.kafka_ssl_certfile, self.kafka_ssl_keyfile, self._key_password)
        except (OSError, ValueError) as error:
            why = reason_of_tls(error) if isinstance(error, ssl.SSLError) else str(error)
            raise CommandError(
                f"cannot use the TLS files for Kafka ({why})", f"look at {names}", code="settings"
            ) from None
        return context

    def _key_password(self) -> str:
        # Called for an encrypted key alone; without it, OpenSSL would ask at the terminal.
        return self.kafka_ssl_key_password.get_secret_value() if self.kafka_ssl_key_password else ""


def read_settings(**overrides: Any) -> Settings:
    """The settings, or a CommandError that names each wrong variable, and each that is none."""
    if unknown := _unknown_names([*os.environ, *DotEnvSettingsSource(Settings).env_vars]):
        raise CommandError("wrong settings: " + "; ".join(unknown), code="settings")
    try:
        return Settings(**overrides)
    except ValidationError as error:
        lines = (
            f"ORDER_WORKER_{'_'.join(str(p) for p in e['loc']).upper()}: {e['msg']}" if e["loc"] else e["msg"]
            for e in error.errors(include_url=False, include_input=False)
        )
        raise CommandError("wrong settings: " + "; ".join(lines), code="settings") from None


def _unknown_names(names: Iterable[str]) -> list[str]:
    """What is wrong with each that begins as a setting does and is none: a slip would be a silent default."""
    known = {*(field.upper() for field in Settings.model_fields), *_NO_SETTINGS}
    given = {name.upper().removeprefix(_PREFIX) for name in names if name.upper().startswith(_PREFIX)}
    unknown = sorted(name for name in given - known if not _OF_KUBERNETES.fullmatch(name))
    return [
        f"{_PREFIX}{name} is no setting"
        + "".join(f"; do you mean {_PREFIX}{near}?" for near in get_close_matches(name, known, 1))
        for name in unknown
    ]
