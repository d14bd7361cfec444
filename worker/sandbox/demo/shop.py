"""The demo's shop: settings, tables, topics, catalogue; under names of its own on given servers."""

import csv
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

from aiokafka.errors import KafkaError
from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.schema import DropSchema

from db import migrate
from worker.database import database_engine, require_reachable_database
from worker.errors import CommandError
from worker.kafka.clients import kafka_admin
from worker.operations.setup.catalog import ImportRequest, import_catalog
from worker.operations.setup.topics import create_topics
from worker.sandbox.demo.retailer import Retailer
from worker.sandbox.servers.services import Services
from worker.settings import Settings, read_settings

PARTITIONS: Final = 4

# As short as servers of ours allow within reason: how long Kafka waits before it believes a worker dead.
_OUR_SESSION_TIMEOUT_MS: Final = 3_000
# The least an ordinary broker accepts.
_USUAL_SESSION_TIMEOUT_MS: Final = 6_000
_TOPIC_SETTINGS: Final = (
    "order_placed_topic",
    "order_confirmed_topic",
    "order_rejected_topic",
    "dead_letter_topic",
)
_OWN_SERVER_SETTINGS: Final = {"kafka_security_protocol": "PLAINTEXT"}


def choices_for(services: Services, found: Settings) -> dict[str, str]:
    """What the demo sets, whatever the environment says: setting → value."""
    chosen = {
        "http_host": "127.0.0.1",
        "http_port": "0",
        "log_level": "INFO",
        "log_format": "text",
        "message_max_bytes": str(256 * 1024),
        "session_timeout_ms": str(_session_timeout_ms(services, found)),
    }
    return chosen | (_on_given_servers() if services.kind == "given" else _on_own_servers(services))


def _session_timeout_ms(services: Services, found: Settings) -> int:
    if services.kind != "given":
        return _OUR_SESSION_TIMEOUT_MS
    # Some brokers ask for more, or allow less: who knows it can say so.
    asked_for = "session_timeout_ms" in found.model_fields_set
    return found.session_timeout_ms if asked_for else _USUAL_SESSION_TIMEOUT_MS


def _on_given_servers() -> dict[str, str]:
    suffix = f"demo-{uuid4().hex[:8]}"
    names = {name: f"{Settings.model_fields[name].default}-{suffix}" for name in _TOPIC_SETTINGS}
    return {
        **names,
        "group_id": f"order-worker-{suffix}",
        "database_schema": suffix.replace("-", "_"),
    }


def _on_own_servers(services: Services) -> dict[str, str]:
    names = ("group_id", "database_schema", *_TOPIC_SETTINGS)
    return {
        **{name: str(Settings.model_fields[name].default) for name in names},
        **_OWN_SERVER_SETTINGS,
        "kafka_bootstrap_servers": services.kafka_bootstrap_servers,
        "database_url": services.database_url,
    }


def settings_from(choices: Mapping[str, str]) -> Settings:
    """The environment's settings with the demo's own choices."""
    values: dict[str, Any] = dict(choices)
    if "database_url" in values:
        values["database_url"] = SecretStr(values["database_url"])
    for name in ("http_port", "message_max_bytes", "session_timeout_ms"):
        values[name] = int(values[name])
    return read_settings(**values)


def variables(choices: Mapping[str, str]) -> dict[str, str]:
    """The choices as environment variables, for a worker or for a person."""
    return {f"ORDER_WORKER_{name.upper()}": value for name, value in choices.items()}


@asynccontextmanager
async def opened_shop(settings: Settings, *, is_given: bool) -> AsyncIterator[None]:
    """Tables and topics; removed at the end where the servers outlive the demo, however it ends."""
    try:
        await _upgrade(settings)
        await create_topics(settings, PARTITIONS)
        yield
    finally:
        if is_given:
            await _remove(settings)


async def _upgrade(settings: Settings) -> None:
    async with database_engine(settings, "order-worker demo") as engine:
        await require_reachable_database(engine, settings)
        try:
            await migrate.upgrade(engine, settings.database_schema)
        except SQLAlchemyError as error:
            reason = str(getattr(error, "orig", None) or error).splitlines()[0]
            raise CommandError(f"cannot create the demo's own schema: {reason}") from error


async def _remove(settings: Settings) -> None:
    # Each by itself: what keeps one of them from going should not keep the other. The group needs no
    # removal: Kafka forgets it once it has no members and its topics are gone.
    with suppress(CommandError, KafkaError, OSError, TimeoutError):
        async with kafka_admin(settings) as admin:
            present = set(await admin.list_topics())
            await admin.delete_topics([name for name in settings.topics.all if name in present])
    with suppress(SQLAlchemyError, OSError, TimeoutError):
        async with database_engine(settings, "order-worker demo") as engine, engine.begin() as connection:
            await connection.execute(text("SET LOCAL lock_timeout = '5s'"))
            await connection.execute(DropSchema(settings.database_schema, cascade=True, if_exists=True))


async def fill_shop(settings: Settings, retailer: Retailer, folder: Path) -> None:
    """The retailer's catalogue, by the very import that `order-worker catalog import` does."""
    files = folder / "catalogue"
    files.mkdir()
    write_catalogue(retailer, files)
    await import_catalog(settings, ImportRequest(files, quiet=True))


def write_catalogue(retailer: Retailer, folder: Path) -> None:
    """The three files that `catalog import` reads."""
    _write(
        folder / "users.csv",
        ("id", "email", "full_name"),
        ((u.id, u.email, u.full_name) for u in retailer.users),
    )
    _write(
        folder / "categories.csv",
        ("id", "name", "description"),
        ((1, "Gifts", "What the retailer sells"), (2, "Fees", "Postage, vouchers and charges")),
    )
    _write(
        folder / "products.csv",
        ("id", "name", "description", "price", "stock_quantity", "category_id"),
        (
            (p.id, p.name, f"stock code {p.stock_code}", p.price, p.stock, 2 if p.is_fee else 1)
            for p in retailer.products
        ),
    )


def _write(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
