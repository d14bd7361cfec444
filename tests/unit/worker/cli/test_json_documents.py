"""The schemas of what --json prints, and what every command has to keep to."""

from pathlib import Path

import pytest

from tests.support.json_schema import faults
from tests.support.order_worker import ROOT, command_named, command_names
from worker.cli.documents import FOLDER, ONE_OF, documents
from worker.cli.failure import document_text, one_line
from worker.errors import CommandError
from worker.operations.screen import versioned


def options_of(name: str) -> set[str]:
    return {option for parameter in command_named(name).params for option in parameter.opts}


def test_the_schemas_checked_in_are_those_of_the_documents():
    written = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.json")}
    assert written == documents(), "run: make schemas"


@pytest.mark.parametrize("name", [name for name in command_names() if "--json" in options_of(name)])
def test_each_command_with_json_has_a_schema(name: str):
    assert name in ONE_OF, "name what it prints in worker/cli/documents.py, and run: make schemas"


def test_no_command_starts_an_event_loop_that_a_signal_would_not_cancel():
    for path in Path(ROOT, "worker", "cli").glob("*.py"):
        assert "asyncio.run(" not in path.read_text(), f"{path.name}: use interruption.run"


def test_the_checker_of_schemas_finds_what_is_wrong():
    good = '{"version": 1, "error": {"code": "usage", "message": "m", "next": null}}'
    assert faults(_read(good), "error") == []
    for wrong in (
        good.replace("1", "2"),
        good.replace("usage", "other"),
        good.replace('"m"', "3"),
        good.replace('"next"', '"then"'),
    ):
        assert faults(_read(wrong), "error") != [], wrong


def _read(text: str) -> object:
    import json

    return json.loads(text)


def test_a_document_begins_with_its_version_and_a_list_has_it_in_each_entry():
    assert list(versioned({"a": 1})) == ["version", "a"]  # type: ignore[call-overload]
    assert versioned([{"a": 1}]) == [{"version": 1, "a": 1}]


def test_a_failure_is_one_line_whatever_its_message_holds():
    assert one_line("bad\nname \x1b[31m") == "bad name ·[31m"
    assert "\n" not in document_text(CommandError("two\nlines", "do this"))


def test_the_next_step_is_in_the_line_for_people_too():
    assert str(CommandError("it is away", "start it")) == "it is away: start it"
