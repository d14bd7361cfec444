"""Log lines for people (text) or for machines (one JSON object a line), on standard error."""

import json
import logging
from datetime import UTC, datetime
from typing import Final, Literal

SILENCE_SECONDS: Final = 10.0
_LIBRARIES: Final = ("aiokafka", "asyncio", "uvicorn")
_TEXT: Final = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (RFC 3339, UTC), level, logger, message, and the traceback if any."""

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry)


class Sparingly(logging.Filter):
    """Lets a message of a library through once in `SILENCE_SECONDS`, whatever its arguments.

    Each type of error counts as a message of its own, so that none is hidden by another.

    While a broker is away aiokafka reports each attempt to connect, hundreds a second; while no more files
    can be opened, asyncio each connection that it cannot accept, thousands.
    """

    def __init__(self) -> None:
        super().__init__()
        self._last: dict[tuple[str, str, object], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[0] if record.exc_info else None
        key = (record.name, str(record.msg).partition("\n")[0], error)
        if record.created - self._last.get(key, 0.0) < SILENCE_SECONDS:
            return False
        self._last[key] = record.created
        return True


def configure(level: str, form: Literal["text", "json"]) -> None:
    """Set up logging for the process. Keys and values of records are never logged, at any level."""
    handler = logging.StreamHandler()
    libraries = Sparingly()
    handler.addFilter(lambda record: not record.name.startswith(_LIBRARIES) or libraries.filter(record))
    handler.setFormatter(JsonFormatter() if form == "json" else logging.Formatter(_TEXT))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    # aiokafka writes keys and values at DEBUG. What the libraries say at INFO, the worker says itself.
    for name in ("aiokafka", "alembic", "uvicorn"):
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLevelName(level)))
    # It warns at each start that topics are not created by themselves, which is what we ask for.
    logging.getLogger("worker.faststream").setLevel(logging.ERROR)
