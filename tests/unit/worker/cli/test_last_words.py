"""A worker that cannot start says why in its log, where machines read that."""

import json

import pytest

from tests.support.json_schema import faults
from worker.cli.run import last_words
from worker.errors import UsageError


@pytest.mark.parametrize(
    ("error", "code", "message", "has_traceback"),
    [
        (UsageError("it is wrong", "set it right"), 2, "it is wrong: set it right", False),
        (TimeoutError("late"), 1, "no answer in time: run it again", False),
        (ExceptionGroup("at once", [UsageError("it is wrong")]), 2, "it is wrong", False),
        (ValueError("nobody foresaw it"), 1, "nobody foresaw it", True),
    ],
    ids=["known", "outage", "of several", "unforeseen"],
)
def test_what_ends_a_worker_is_a_line_of_its_log_where_that_is_json(
    capsys: pytest.CaptureFixture[str], error: Exception, code: int, message: str, has_traceback: bool
) -> None:
    with pytest.raises(SystemExit) as exited, last_words("json"):
        raise error
    assert exited.value.code == code
    read = json.loads(capsys.readouterr().err)
    assert faults(read, "log-line") == []
    assert (read["event"], read["exit_code"], read["message"]) == ("worker_fails", code, message)
    assert ("traceback" in read) is has_traceback
    with pytest.raises(type(error)), last_words("text"):
        raise error
