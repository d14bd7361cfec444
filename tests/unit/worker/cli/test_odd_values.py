"""What a shell hands over by mistake, as `--from "$SINCE"` of a variable that is not set, chooses nothing."""

from collections.abc import Iterator

import pytest

from tests.support.order_worker import OrderWorker, command_named, command_names
from worker.cli.options import operator_name
from worker.errors import UsageError

# What a command asks for beside the option that is tried.
NEEDED = {
    "check": ["orders.jsonl"],
    "dead-letters export": ["--out", "letters.jsonl"],
    "dead-letters settle": ["--code", "not_json", "--note", "done"],
    "db downgrade": ["0001"],
    "place": ["--random", "1"],
    "ledger prune": ["--before", "2026-01-01T00:00:00Z"],
}


def options(kind: str) -> Iterator[tuple[str, str]]:
    """Each command with each of its options of that metavar or type."""
    for name in command_names():
        for parameter in command_named(name).params:
            if kind in (parameter.metavar, parameter.type.name):
                yield name, parameter.opts[0]


def assert_refused(name: str, option: str, value: str) -> None:
    result = OrderWorker({}).here(*name.split(), *NEEDED.get(name, []), option, value)
    result.assert_refused(2, option)


@pytest.mark.parametrize(("name", "option"), [*options("TIME")])
def test_an_empty_time_is_not_taken_for_none(name: str, option: str):
    assert_refused(name, option, "")


@pytest.mark.parametrize(("name", "option"), [*options("float range")])
@pytest.mark.parametrize("value", ["nan", "inf"])
def test_what_is_no_number_bounds_nothing(name: str, option: str, value: str):
    assert_refused(name, option, value)


@pytest.mark.parametrize(
    "words",
    [
        ("republish", "--partition", "2147483648"),
        ("replay", "--to-offset", "9223372036854775808"),
        ("replay", "--shift-by", "-9223372036854775808"),
        ("skip", "order-placed:0:1", "--through", "9223372036854775808"),
    ],
    ids=lambda words: words[0] + words[-2],
)
def test_a_place_beyond_what_kafka_can_count_is_wrong_usage(words: tuple[str, ...]):
    OrderWorker({}).here(*words).assert_refused(2, words[-2], "range")


def test_more_workers_than_there_are_ports_from_the_first_one_are_refused():
    worker = OrderWorker({"ORDER_WORKER_HTTP_PORT": "65534"})
    worker.here("run", "--workers", "3").assert_refused(2, "--workers 3", "ORDER_WORKER_HTTP_PORT=65534")


@pytest.mark.parametrize("name", ["", " "])
def test_who_asks_is_never_made_up_for_an_empty_name(name: str):
    with pytest.raises(UsageError, match="--by is empty"):
        operator_name(name)
    assert operator_name("ada") == "ada"


@pytest.mark.parametrize("name", ["a\nb", "\x1b[2J", "x" * 101], ids=["lines", "escape", "long"])
def test_who_asks_is_recorded_on_one_line(name: str):
    with pytest.raises(UsageError, match="--by: write at most 100 characters, on one line"):
        operator_name(name)


@pytest.mark.parametrize(
    "words",
    [
        ("dead-letters", "settle", "--note", "mended", "--path", ""),
        ("dead-letters", "redrive", "--path", " "),
        ("replay", "--from-group", ""),
    ],
    ids=lambda words: words[-2],
)
def test_a_variable_that_is_not_set_chooses_nothing(words: tuple[str, ...]):
    OrderWorker({}).here(*words).assert_refused(2, f"{words[-2]} is empty")


def test_bytes_that_are_no_text_end_in_the_same_documents_as_any_other_mistake():
    result = OrderWorker({}).here("replay", "--to-earliest", "--topic", "\udcff", "--json")
    result.assert_one_line(2, "--topic ·: write a topic")
    assert result.document["error"].startswith("--topic ·: write a topic")


def test_there_is_something_to_try():
    assert len(list(options("TIME"))) >= 12
    assert len(list(options("float range"))) >= 12
