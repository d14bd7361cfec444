"""Kafka and PostgreSQL of your own, until Ctrl-C: `make servers`. Their data are gone afterwards.

In Docker where it answers, else as local processes. On the usual ports, with the database that README and
tutorial name, where nobody else listens there. With both settings given, those servers are used.
"""

import asyncio
import os
import signal
import sys
from urllib.parse import urlsplit

import asyncpg

from worker.sandbox.servers.errors import LocalServiceError
from worker.sandbox.servers.services import running_services

KAFKA = "ORDER_WORKER_KAFKA_BOOTSTRAP_SERVERS"
DATABASE = "ORDER_WORKER_DATABASE_URL"


async def make_shop(database_url: str) -> str:
    """A database `shop` of a role `shop`, as `docker compose up` makes it; its URL."""
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute("CREATE ROLE shop SUPERUSER LOGIN PASSWORD 'shop'")
        await connection.execute("CREATE DATABASE shop OWNER shop")
    finally:
        await connection.close()
    address = urlsplit(database_url)
    return f"postgresql://shop:shop@{address.hostname}:{address.port}/shop"


def main() -> None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    given_kafka, given_database = os.environ.get(KAFKA), os.environ.get(DATABASE)
    try:
        with running_services(
            given_kafka=given_kafka, given_database=given_database, report=print, usual_ports=True
        ) as services:
            url = services.database_url
            if services.kind != "given":
                url = asyncio.run(make_shop(url))
            print(f"\nexport {KAFKA}={services.kafka_bootstrap_servers}")
            print(f"export {DATABASE}={url}\n")
            print("Type these two lines in another terminal. Ctrl-C ends the servers.", flush=True)
            signal.pause()
    except LocalServiceError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        print("The servers are gone.")


if __name__ == "__main__":
    main()
