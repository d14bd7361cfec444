"""`python -m bench.counted_worker FILE`: a worker that counts its requests to the servers, and its wake-ups.

On SIGUSR1 it writes the counts so far into the file, as JSON.
"""

import json
import os
import selectors
import signal
import sys
from asyncio.selector_events import _SelectorSocketTransport  # type: ignore[attr-defined]
from collections import Counter
from pathlib import Path
from typing import Any, Final

from aiokafka.conn import AIOKafkaConnection
from sqlalchemy import make_url

from worker.runtime.process import run
from worker.settings import Settings, read_settings

POSTGRES_MESSAGES: Final = "to Postgres"
KAFKA_REQUESTS: Final = "to Kafka"
WAKE_UPS: Final = "wake-ups"
_COPY_DATA: Final = ord("d")


def count(settings: Settings, counts: Counter[str]) -> None:
    """From now on, count this process's requests to Kafka, also by kind, messages to PostgreSQL and wake-ups.

    What asyncpg hands to the socket in one piece is one message; the rows of a COPY are none.
    """
    port = make_url(settings.database_url.get_secret_value()).port or 5432
    write, send = _SelectorSocketTransport.write, AIOKafkaConnection.send
    select = selectors.DefaultSelector.select

    def counted_write(transport: Any, data: Any) -> None:
        peer = transport.get_extra_info("peername")
        if peer and peer[1] == port and data[0] != _COPY_DATA:
            counts[POSTGRES_MESSAGES] += 1
        write(transport, data)

    def counted_send(connection: Any, request: Any, expect_response: bool = True) -> Any:
        counts[KAFKA_REQUESTS] += 1
        counts[type(request).__name__.partition("Request")[0]] += 1
        return send(connection, request, expect_response)

    def counted_select(selector: Any, timeout: float | None = None) -> Any:
        counts[WAKE_UPS] += 1
        return select(selector, timeout)

    _SelectorSocketTransport.write = counted_write
    AIOKafkaConnection.send = counted_send
    selectors.DefaultSelector.select = counted_select  # type: ignore[method-assign,assignment]


def main(file: Path) -> int:
    settings, counts = read_settings(), Counter[str]()
    count(settings, counts)

    def write_counts(*_: object) -> None:
        new = file.with_suffix(".new")
        new.write_text(json.dumps(counts), encoding="utf-8")
        os.replace(new, file)

    signal.signal(signal.SIGUSR1, write_counts)
    return run(settings)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
