"""What of the libraries' lines is written."""

import logging
import sys

import pytest

from worker.observability.log import SILENCE_SECONDS, Sparingly


def line(
    message: str, *arguments: object, at: float = 0.0, error: Exception | None = None
) -> logging.LogRecord:
    exc_info = None
    if error is not None:
        try:
            raise error
        except Exception:
            exc_info = sys.exc_info()
    record = logging.LogRecord("asyncio", logging.ERROR, "", 0, message, arguments, exc_info)
    record.created = 1_000.0 + at
    return record


def written(*lines: logging.LogRecord) -> list[bool]:
    sparingly = Sparingly()
    return [sparingly.filter(one) for one in lines]


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
