"""What of the libraries' lines is written, and how; what a line holds."""

import json
import logging
import sys
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import GroupCoordinatorNotAvailableError, KafkaConnectionError, RequestTimedOutError

from tests.support.json_schema import faults
from worker.kafka.leaders import NoLeaderError
from worker.observability.events import Event, about, places
from worker.observability.kafka_client_words import reworded
from worker.observability.log import (
    SILENCE_SECONDS,
    JsonFormatter,
    LibraryFilter,
    RateLimitFilter,
    TextFormatter,
)


def line(
    message: str,
    *arguments: object,
    at: float = 0.0,
    error: Exception | None = None,
    name: str = "asyncio",
    **extra: Any,
) -> logging.LogRecord:
    exc_info = None
    if error is not None:
        try:
            raise error
        except Exception:
            exc_info = sys.exc_info()
    record = logging.LogRecord(name, logging.ERROR, "", 0, message, arguments, exc_info)
    record.created = 1_000.0 + at
    vars(record).update(extra)
    return record


def written(*lines: logging.LogRecord) -> list[bool]:
    rate_limit = RateLimitFilter()
    return [rate_limit.filter(one) for one in lines]


def document(record: logging.LogRecord) -> dict[str, Any]:
    """The line in JSON, which is as its schema says."""
    read: dict[str, Any] = json.loads(JsonFormatter().format(record))
    assert faults(read, "log-line") == []
    return read


def test_nothing_in_a_line_of_text_breaks_it_or_makes_a_terminal_obey() -> None:
    text = TextFormatter("%(message)s").format(line("%s", "odd\n\x1b[2J\u202e", error=ValueError("x")))
    assert text.startswith("odd··[2J·\nTraceback")


def test_a_message_is_written_once_in_a_while_whatever_its_arguments() -> None:
    first, again, later = (
        line("cannot reach %s", n, at=at) for n, at in ((1, 0), (2, 9), (3, SILENCE_SECONDS))
    )
    assert written(first, again, later) == [True, False, True]


@pytest.mark.parametrize(("second", "is_written"), [(OSError(24, "files"), False), (ValueError("x"), True)])
def test_an_error_is_not_hidden_by_another_one_with_the_same_words(
    second: Exception, is_written: bool
) -> None:
    lines = [
        line("Task failed\n<task 1>", error=OSError(24, "files")),
        line("Task failed\n<task 2>", error=second),
    ]
    assert written(*lines) == [True, is_written]


def test_repeated_checks_are_logged_once_in_a_while_and_a_batch_always() -> None:
    ours = LibraryFilter()

    def say(event: Event) -> bool:
        return ours.filter(line("failed: %s", 1, name="worker.pipeline.maintenance", **about(event)))

    assert [say(Event.LOOK_FAILED), say(Event.LOOK_FAILED)] == [True, False]
    assert [say(Event.BATCH_REWOUND), say(Event.BATCH_REWOUND)] == [True, True]


def test_a_line_has_its_event_and_its_fields() -> None:
    fields = about(Event.RECORDS_DELETED, TopicPartition("order-placed", 3), offset=5, end=9, order_id=None)
    read = document(line("%d records", 4, name="worker.pipeline.takeover", **fields))
    assert read["message"] == "4 records"
    assert (read["event"], read["topic"], read["partition"]) == ("records_deleted", "order-placed", 3)
    assert (read["offset"], read["end"]) == (5, 9)
    assert "order_id" not in read
    several = about(Event.BATCH_REWOUND, partitions=places({TopicPartition("t", 1): None}), server="kafka")
    assert document(line("again", **several))["partitions"] == [{"topic": "t", "partition": 1}]


def test_a_line_of_a_library_has_an_event_too_and_the_traceback_if_any() -> None:
    read = document(line("Task failed", error=ValueError("x")))
    assert read["event"] == "library"
    assert read["traceback"].endswith("ValueError: x")
    assert document(line("of another kind", name="aiokafka.conn"))["event"] == "kafka_client"


REFUSED = ConnectionRefusedError(111, "Connect call failed ('127.0.0.1', 9092)")


@pytest.mark.parametrize(
    ("text", "arguments", "said", "fields"),
    [
        (
            "Unable connect to node with id %s: %s",
            (1, REFUSED),
            "no connection to broker 1: connection refused",
            {"broker": "1", "error": "ConnectionRefusedError"},
        ),
        (
            "Failed fetch messages from %s: %s",
            (2, RequestTimedOutError()),
            "broker 2 gave no records: no answer in time",
            {"broker": "2", "error": "RequestTimedOutError"},
        ),
        (
            "Unable to update metadata from %s",
            ([0, 1],),
            "no broker says which brokers there are; asked: 0, 1",
            {},
        ),
        (
            "Group Coordinator Request failed: %s",
            (GroupCoordinatorNotAvailableError(),),
            "no broker says who coordinates the group: GroupCoordinatorNotAvailableError",
            {"error": "GroupCoordinatorNotAvailableError"},
        ),
        (
            "Could not add partition %s due to unexpected error: %s",
            (TopicPartition("t", 3), RequestTimedOutError),
            "aiokafka: Could not add partition t-3 due to unexpected error: RequestTimedOutError",
            {},
        ),
        (
            "of a version to come: %s",
            (KafkaConnectionError("no way", "127.0.0.1", 9092),),
            "aiokafka: of a version to come: no way, 127.0.0.1, 9092",
            {"error": "KafkaConnectionError"},
        ),
        (
            "another count of arguments: %s %s",
            ("one",),
            "aiokafka: another count of arguments: %s %s one",
            {},
        ),
        ("Failed fetch messages from %s: %s", (), "aiokafka: Failed fetch messages from %s: %s", {}),
        ("number %d", ("x",), "aiokafka: number %d x", {}),
    ],
)
def test_what_the_kafka_client_says_is_said_in_our_words(
    text: str, arguments: tuple[object, ...], said: str, fields: dict[str, str]
) -> None:
    assert reworded(text, arguments) == (said, {"server": "kafka", **fields})


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        (
            "worker.faststream",
            "Kafka error occurred",
            "polling Kafka failed: no broker leads t-0: start",
        ),
        (
            "aiokafka",
            "Unexpected error in sender routine",
            "the producer has failed: no broker leads t-0: start",
        ),
        (
            "asyncio",
            "Task failed\n<task 1>",
            "Task failed: no broker leads t-0: start",
        ),
    ],
)
def test_an_outage_that_a_library_logs_is_one_line(name: str, text: str, said: str) -> None:
    record = line(text, name=name, error=NoLeaderError([TopicPartition("t", 0)]))
    assert LibraryFilter().filter(record)
    read = document(record)
    assert read["message"].startswith(said)
    assert (read["error"], read["server"]) == ("NoLeaderError", "kafka")
    assert "traceback" not in read


def test_what_a_library_says_in_several_lines_is_one_line() -> None:
    record = line("Task was destroyed but it is %s!\ntask: <Task 1>", "pending", name="asyncio")
    assert LibraryFilter().filter(record)
    assert record.getMessage() == "Task was destroyed but it is pending! task: <Task 1>"


def test_the_words_of_the_kafka_client_reach_the_line() -> None:
    record = line("Unable connect to node with id %s: %s", 1, REFUSED, name="aiokafka")
    assert LibraryFilter().filter(record)
    read = document(record)
    assert read["message"] == "no connection to broker 1: connection refused"
    assert (read["event"], read["server"], read["broker"]) == ("kafka_client", "kafka", "1")
