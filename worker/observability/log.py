"""Log lines for people (text) or for machines (one JSON object a line), on standard error."""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any, Final, Literal

from aiokafka.errors import KafkaError

from worker import DOCUMENT_VERSION
from worker.error_texts import describe
from worker.failures import is_outage
from worker.observability.events import RATE_LIMITED, Event, about
from worker.observability.kafka_client_words import reworded
from worker.observability.log_handler import handler_of
from worker.standard_streams import visible

SILENCE_SECONDS: Final = 10.0
_KAFKA_CLIENT: Final = "aiokafka"
_POLLS: Final = "worker.faststream"  # the logger that `worker.broker` gives to FastStream
_LIBRARIES: Final = (
    *(_KAFKA_CLIENT, _POLLS, "asyncio", "uvicorn", "faststream", "opentelemetry", "urllib3", "py.warnings"),
)
_TEXT: Final = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"

Form = Literal["text", "json"]


class TextFormatter(logging.Formatter):
    """A line that nothing in it breaks, and nothing in it makes a terminal obey; a traceback as it is."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (of the base class)
        return visible(super().formatMessage(record))


class JsonFormatter(logging.Formatter):
    """One JSON object a line: docs/json/log-line.json. It never holds the content of a record."""

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "version": DOCUMENT_VERSION,
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname,
            "event": event_of(record),
            "logger": record.name,
            "process": record.process,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str)


def event_of(record: logging.LogRecord) -> Event:
    """The event of the line; for a line of a library, which library."""
    event = getattr(record, "event", None)
    if isinstance(event, Event):
        return event
    return Event.KAFKA_CLIENT if record.name.startswith((_KAFKA_CLIENT, _POLLS)) else Event.LIBRARY


class RateLimitFilter(logging.Filter):
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


class LibraryFilter(logging.Filter):
    """Puts what a library logs on one line, and lets a repeated message through only once in a while.

    aiokafka's messages are reworded. A traceback is left out where a server is away or refuses: it shows the
    library only.
    """

    def __init__(self) -> None:
        super().__init__()
        self._rate_limit = RateLimitFilter()

    def filter(self, record: logging.LogRecord) -> bool:
        is_of_library = record.name.startswith(_LIBRARIES)
        if not is_of_library and event_of(record) not in RATE_LIMITED:
            return True
        if not self._rate_limit.filter(record):
            return False
        error = record.exc_info[1] if record.exc_info else None
        if is_of_library and error is not None and is_outage(error):
            _in_one_line(record, error)
        elif record.name.startswith(_KAFKA_CLIENT):
            record.msg, fields = reworded(str(record.msg), record.args)
            record.args = ()
            vars(record).update(about(Event.KAFKA_CLIENT, **fields))
        elif is_of_library:
            record.msg, record.args = " ".join(_said(record).split()), ()
        return True


def _said(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except (TypeError, ValueError):  # its arguments do not fit; a filter must not raise
        return str(record.msg)


def _in_one_line(record: logging.LogRecord, error: BaseException) -> None:
    if record.name == _POLLS:
        what = "polling Kafka failed"
    elif record.name.startswith(_KAFKA_CLIENT):
        what, _ = reworded(str(record.msg), record.args)
    else:
        what = _said(record).partition("\n")[0]
    record.msg, record.args, record.exc_info = "%s: %s", (what, describe(error)), None
    fields = {"server": "kafka"} if isinstance(error, KafkaError) else {}
    vars(record).update(about(event_of(record), error=type(error).__name__, **fields))


def configure(level: str, form: Form) -> None:
    """Set up logging for the process. Keys and values of records are never logged, at any level."""
    handler = handler_of(sys.stderr)
    handler.addFilter(LibraryFilter())
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter(_TEXT))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.captureWarnings(capture=True)
    # aiokafka writes keys and values at DEBUG. What the libraries say at INFO, the worker says itself.
    for name in ("aiokafka", "alembic", "uvicorn", "urllib3"):
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLevelName(level)))
    # It warns at each start that topics are not created by themselves, which is what we ask for.
    logging.getLogger(_POLLS).setLevel(logging.ERROR)


def last_line(error: Exception, exit_code: int, *, with_traceback: bool) -> str:
    """The JSON line of the error that ends a worker. It uses no logger: their set-up may have failed."""
    trace = (type(error), error, error.__traceback__) if with_traceback else None
    said = logging.LogRecord(__name__, logging.CRITICAL, "", 0, "%s", (error,), trace)
    vars(said).update(about(Event.WORKER_FAILS, exit_code=exit_code, error=type(error).__name__))
    return JsonFormatter().format(said)
