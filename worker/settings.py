"""Every setting, read from the environment (prefix `ORDER_WORKER_`) and from `.env`."""

import shlex
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from contracts.topics import DEAD_LETTER, ORDER_CONFIRMED, ORDER_PLACED, ORDER_REJECTED, Topics
from db.database_url import has_password
from worker.errors import CommandError
from worker.kafka_login import KafkaLogin, TokenCommand
from worker.secret_files import CredentialError, named, read_secret
from worker.setting_names import PREFIX, wrong_names
from worker.setting_values import (
    DAY_MS,
    DAY_SECONDS,
    GIBIBYTE,
    Address,
    InstanceId,
    Name,
    Password,
    Port,
    Servers,
    TopicName,
)
from worker.tls import ClientTls

_ENV_FILE: Final = ".env"
# Each may be given by a file, which `<name>_file` names.
SECRETS: Final = ("database_url", "kafka_sasl_username", "kafka_sasl_password", "kafka_ssl_key_password")
_OAUTH: Final = "OAUTHBEARER"


class Settings(BaseSettings):
    """What an operator can set. Immutable once read."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_file=_ENV_FILE,
        extra="ignore",
        frozen=True,
        env_ignore_empty=True,
        hide_input_in_errors=True,
    )

    kafka_bootstrap_servers: Servers = Field(
        "127.0.0.1:9092", min_length=1, description="brokers as host:port, comma separated"
    )
    database_url: Address = Field(
        SecretStr("postgresql://postgres@127.0.0.1:5432/postgres"),
        description="as libpq takes it: postgresql://user:password@host:port/name?sslmode=…",
    )
    database_url_file: Path | None = Field(None, description="a file with that URL")
    database_password_file: Path | None = Field(None, description="a file with the password alone")
    database_schema: Name = Field("public", min_length=1, max_length=63, description="the shop's schema")
    group_id: Name = Field(
        "order-worker", min_length=1, description="consumer group, and the start of all transactional ids"
    )
    instance_id: InstanceId = Field(
        "", description="the worker's name; a new one of that name replaces it; default: host and port"
    )
    http_host: Name = Field("127.0.0.1", description="address of page and metrics; image: 0.0.0.0")
    http_port: Port = Field(8000, description="0: any; with --workers N, worker k takes port + k")

    order_placed_topic: TopicName = Field(ORDER_PLACED, description="the input")
    order_confirmed_topic: TopicName = Field(ORDER_CONFIRMED, description="outcomes: confirmed")
    order_rejected_topic: TopicName = Field(ORDER_REJECTED, description="outcomes: rejected")
    dead_letter_topic: TopicName = Field(DEAD_LETTER, description="records that could not be decided")

    # More orders in a batch share its fixed cost, and the reads and updates of a product. With 4,400 an order
    # took 53 to 56 µs of CPU time of worker, PostgreSQL and Kafka, with 8,000 46 to 50, with 12,000 as much
    # and 13 MiB more (three rounds, two processes, 5,000 products).
    batch_max_records: int = Field(8_000, ge=1, le=20_000, description="records decided in one batch")
    batch_max_bytes: int = Field(
        3 * 1024 * 1024,
        ge=1_024,
        le=GIBIBYTE,
        description="bytes of values decided in one batch; bounds the memory",
    )
    batch_timeout_seconds: float = Field(
        30.0,
        ge=1,  # below that, not even a connection is made in time
        le=DAY_SECONDS,
        description="a database transaction that takes longer is given up and redone",
    )
    message_max_bytes: int = Field(
        256 * 1024, ge=1_024, le=GIBIBYTE, description="a larger value is a dead letter"
    )

    session_timeout_ms: int = Field(
        10_000, ge=1_000, le=1_800_000, description="a silent worker loses its partitions after this"
    )
    transaction_timeout_ms: int = Field(
        60_000, ge=1_000, le=DAY_MS, description="an abandoned Kafka transaction ends after this"
    )
    request_timeout_ms: int = Field(15_000, ge=1_000, le=DAY_MS, description="longest request to Kafka")
    statement_timeout_ms: int = Field(20_000, ge=100, le=DAY_MS, description="longest SQL statement")
    lock_timeout_ms: int = Field(5_000, ge=100, le=DAY_MS, description="longest wait for one row or lock")
    shutdown_timeout_seconds: float = Field(
        25.0, gt=0, le=DAY_SECONDS, description="after SIGTERM, for the batch in flight"
    )
    retry_max_seconds: float = Field(
        15.0, gt=0, le=DAY_SECONDS, description="longest pause between two attempts"
    )
    # A worker without orders shows a sign of life every two seconds, after an answer that may take as long.
    stall_limit_seconds: float = Field(
        300.0, ge=5, le=DAY_SECONDS, description="no sign of life for so long while orders wait: exit 3"
    )
    # Longer than any rotation: until a renewed secret is in all its containers, Kubernetes takes up to two
    # minutes.
    refused_limit_seconds: float = Field(
        180.0,
        gt=0,
        le=DAY_SECONDS,
        description="a server does nothing but refuse our credentials for so long: exit 4",
    )

    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="how to connect to Kafka"
    )
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] = Field(
        "PLAIN", description="of SASL: how to log in"
    )
    kafka_sasl_username: Name | None = Field(None, description="of SASL, but for OAUTHBEARER")
    kafka_sasl_username_file: Path | None = Field(None, description="a file with it")
    kafka_sasl_password: Password | None = Field(None, description="of that user")
    kafka_sasl_password_file: Path | None = Field(None, description="a file with it")
    kafka_sasl_token_file: Path | None = Field(None, description="of OAUTHBEARER: a file with the token")
    kafka_sasl_token_command: SecretStr | None = Field(None, description="a command that writes it")
    kafka_ssl_cafile: Path | None = Field(None, description="CA certificates in place of the system's")
    kafka_ssl_certfile: Path | None = Field(None, description="client certificate")
    kafka_ssl_keyfile: Path | None = Field(None, description="client key")
    kafka_ssl_key_password: Password | None = Field(None, description="of an encrypted client key")
    kafka_ssl_key_password_file: Path | None = Field(None, description="a file with it")

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="the least to log")
    log_format: Literal["text", "json"] = Field("text", description="json: one object a line")

    @model_validator(mode="before")
    @classmethod
    def _of_files(cls, given: dict[str, Any]) -> dict[str, Any]:
        """Read each secret file once, so that a wrong file is reported at the start."""
        values = dict(given)
        for name in SECRETS:
            if values.get(f"{name}_file") is None:
                continue
            if values.get(name) is not None:
                raise ValueError(f"set {_variable(name)} or {_variable(name)}_FILE, not both")
            values[name] = _read(f"{name}_file", values[f"{name}_file"])
        return values

    @model_validator(mode="after")
    def _consistent(self) -> "Settings":
        if len(set(self.topics.all)) < len(self.topics.all):
            raise ValueError("the four topics must have different names")
        if self.database_password_file:
            if has_password(self.database_url.get_secret_value()):
                url, file = _variable("database_url"), _variable("database_password_file")
                raise ValueError(f"set a password in {url} or {file}, not both")
            _read("database_password_file", self.database_password_file)
        self._require_login()
        return self

    def _require_login(self) -> None:
        tokens = [
            name for name in ("kafka_sasl_token_file", "kafka_sasl_token_command") if getattr(self, name)
        ]
        both = " or ".join(map(_variable, ("kafka_sasl_token_file", "kafka_sasl_token_command")))
        if self.kafka_sasl_mechanism != _OAUTH:
            if tokens:
                mechanism = _variable("kafka_sasl_mechanism")
                raise ValueError(f"{_variable(tokens[0])} is for {mechanism}={_OAUTH}")
            is_complete = self.kafka_sasl_username and self.kafka_sasl_password
            if self.kafka_security_protocol.startswith("SASL") and not is_complete:
                raise ValueError(
                    f"SASL needs {_variable('kafka_sasl_username')} and {_variable('kafka_sasl_password')}"
                )
        elif len(tokens) == 2:
            raise ValueError(f"set {both}, not both")
        elif not tokens and self.kafka_security_protocol.startswith("SASL"):
            raise ValueError(f"{_OAUTH} needs {both}")
        if self.kafka_sasl_token_command:
            _require_words(self.kafka_sasl_token_command.get_secret_value())
        if self.kafka_sasl_token_file:
            _read("kafka_sasl_token_file", self.kafka_sasl_token_file)

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

    def secret(self, name: str) -> Callable[[], str] | None:
        """A function that reads one of `SECRETS`, or of the secrets given only by file; None: not set.

        The function reads the file at each call, and raises CredentialError if it cannot.
        """
        if path := getattr(self, f"{name}_file"):
            return partial(read_secret, _variable(f"{name}_file"), path)
        value = getattr(self, name, None)
        plain = value.get_secret_value() if isinstance(value, SecretStr) else value
        return (lambda: plain) if plain else None

    def set_by(self, *names: str) -> str:
        """The variables that set these secrets, with the files that they name."""
        files = ((name, getattr(self, f"{name}_file")) for name in names)
        return ", ".join(
            named(_variable(f"{name}_file"), path) if path else _variable(name) for name, path in files
        )

    def kafka_client_options(self) -> dict[str, Any]:
        """The options of every aiokafka client: servers, TLS and SASL. Each connection reads the files again.

        Raises CommandError if the TLS files cannot be used.
        """
        options: dict[str, Any] = {
            "bootstrap_servers": self.kafka_bootstrap_servers,
            "security_protocol": self.kafka_security_protocol,
            "request_timeout_ms": self.request_timeout_ms,
        }
        if self.kafka_security_protocol == "PLAINTEXT":
            return options
        login = options["sasl_oauth_token_provider"] = self._kafka_login()
        if login.tls:
            try:
                options["ssl_context"] = login.tls.context()
            except CredentialError as error:
                raise CommandError(str(error)) from None
        if self.kafka_security_protocol.startswith("SASL"):
            # aiokafka insists on user and password here; what it sends is the login's.
            options |= dict.fromkeys(("sasl_plain_username", "sasl_plain_password"), "")
            options["sasl_mechanism"] = self.kafka_sasl_mechanism
        return options

    def _kafka_login(self) -> KafkaLogin:
        tls = ClientTls(
            self.kafka_ssl_cafile,
            self.kafka_ssl_certfile,
            self.kafka_ssl_keyfile,
            self.secret("kafka_ssl_key_password"),
        )
        found = tls if self.kafka_security_protocol.endswith("SSL") else None
        if self.kafka_sasl_mechanism != _OAUTH:
            set_by = self.set_by("kafka_sasl_username", "kafka_sasl_password")
            return KafkaLogin(
                set_by, found, self.secret("kafka_sasl_username"), self.secret("kafka_sasl_password")
            )
        if self.kafka_sasl_token_command:
            variable = _variable("kafka_sasl_token_command")
            command = TokenCommand(variable, self.kafka_sasl_token_command.get_secret_value())
            return KafkaLogin(variable, found, token_command=command)
        return KafkaLogin(self.set_by("kafka_sasl_token"), found, token_file=self.secret("kafka_sasl_token"))


def _variable(name: str) -> str:
    return PREFIX + name.upper()


def _read(name: str, path: Path | str) -> str:
    try:
        return read_secret(_variable(name), Path(path))
    except CredentialError as error:
        raise ValueError(str(error)) from None


def _require_words(command: str) -> None:
    try:
        if shlex.split(command):
            return
    except ValueError:
        pass
    raise ValueError(f"{_variable('kafka_sasl_token_command')} is no command: look at its quotes")


def read_settings(**overrides: Any) -> Settings:
    """The settings; raises CommandError, which names each wrong and each unknown variable."""
    if wrong := wrong_names(Path(_ENV_FILE), Settings.model_fields):
        raise CommandError("wrong settings: " + "; ".join(wrong), code="settings")
    # A secret that is given itself has precedence over its file.
    files = {f"{name}_file": None for name in SECRETS if name in overrides}
    try:
        return Settings(**{**files, **overrides})
    except ValidationError as error:
        lines = (
            "".join(f"{_variable(str(p))}: " for p in e["loc"][:1]) + e["msg"].removeprefix("Value error, ")
            for e in error.errors(include_url=False, include_input=False)
        )
        raise CommandError("wrong settings: " + "; ".join(lines), code="settings") from None
