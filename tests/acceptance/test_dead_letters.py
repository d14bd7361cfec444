"""Dead letters looked at and taken out, whatever somebody put into them."""

import json
import os
import subprocess
import sys
from base64 import b64decode
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from contracts.examples import hostile_values
from tests.support.builders import line, order_value
from tests.support.deadline import eventually
from tests.support.order_worker import ROOT, OrderWorker
from tests.support.promises import Scene
from tests.support.publishing import publish
from tests.support.topic_names import TopicNames
from tests.support.worker_process import Workers
from worker.operations.dead_letters.letter import general

QUANTITIES = "items.*.quantity"
ODD: list[tuple[str, bytes | None]] = [("x", b"\xff"), ("y", None), ("\x1b[31m", b"\x1b[31mred"), ("x", b"2")]


@pytest.fixture
def dead_letters(order_worker: OrderWorker) -> OrderWorker:
    return order_worker.of("dead-letters")


def bytes_of(fields: dict[str, Any], name: str) -> bytes | None:
    """What an exported field stands for."""
    if f"{name}_base64" in fields:
        return b64decode(fields[f"{name}_base64"])
    text = fields[name]
    return None if text is None else text.encode()


def test_hostile_letters_are_listed_shown_and_taken_out_as_they_are(
    scene: Scene, workers: Workers, dead_letters: OrderWorker, tmp_path: Path
):
    hostile = hostile_values()
    publish(
        scene.kafka,
        scene.topics.order_placed,
        [one.value for one in hostile],
        partition=2,
        key=b"\xff\x00\x1b",
        headers=ODD,
    )
    twice = uuid4()
    scene.place([order_value(line(9), line(9, 0), order_id=twice), None, b"\x1b[2J\x00\xff"], partition=1)
    workers.start()
    scene.wait_until_drained()
    eventually(lambda: len(scene.dead_letters()) == len(hostile) + 3)
    # What nobody of ours wrote, and a letter that was written once more after a rewind.
    ours = next(m for m in scene.dead_letters() if m.partition == 1 and m.offset == 0)
    publish(
        scene.kafka, scene.topics.dead_letter, [b"foreign"], partition=3, headers=[("source.offset", b"x")]
    )
    publish(scene.kafka, scene.topics.dead_letter, [ours.value], partition=1, headers=ours.headers)

    groups = dead_letters.here("list", "--json").document
    letters = scene.dead_letters()
    assert sum(g["count"] for g in groups) == len(letters) == len(hostile) + 5
    by_key = {(g["code"], g["path"]): g for g in groups}
    assert by_key["(none)", ""]["sample"] == "3:0"
    alike = [one for one in hostile if (one.code, general(one.path)) == ("invalid_order", QUANTITIES)]
    assert by_key["invalid_order", QUANTITIES]["count"] == len(alike) + 2
    assert "\x1b" not in dead_letters("list").out

    path = tmp_path / "letters.jsonl"
    assert dead_letters("export", "--out", str(path)).code == 0
    exported = {one["place"]: one for one in map(json.loads, path.read_bytes().splitlines())}
    assert len(exported) == len(letters)
    for letter in letters:
        one = exported[f"{letter.partition}:{letter.offset}"]
        assert (bytes_of(one, "key"), bytes_of(one, "value")) == (letter.key, letter.value)
        assert [(h["name"], bytes_of(h, "value")) for h in one["headers"]] == letter.headers
        assert one["error"]["code"] == (letter.header("error.code") or "(none)")
    before = path.read_bytes()
    dead_letters.here("export", "--out", str(path)).assert_one_line(2, "exists", "--force")
    assert dead_letters.here("export", "--code", "empty_value", "--out", str(path), "--force").code == 0
    assert b"not_json" not in path.read_bytes()
    assert path.read_bytes() != before
    assert [p.name for p in tmp_path.iterdir() if "letters" in p.name] == ["letters.jsonl"]
    reader = subprocess.run(
        f"{sys.executable} -m worker dead-letters export --out - | head -c 1",
        shell=True,
        cwd=ROOT,
        env={**os.environ, **dead_letters.env},
        capture_output=True,
    )
    assert b"Traceback" not in reader.stderr
    assert reader.stdout == b"{"

    sound, null, binary, odd = (
        dead_letters.here("show", place).out for place in ("1:0", "1:1", "1:2", "2:0")
    )
    assert '"quantity": 0\n' in sound
    assert "the value is null" in null
    assert "(base64: it is not UTF-8)" in binary
    assert "/wAb (base64: it is not UTF-8)" in odd
    assert "\x1b" not in odd

    selection = dead_letters.here("redrive", "--json").document["selection"]
    assert selection["letters"] == len(hostile) + 3
    assert (selection["of_other_topics"], selection["written_twice"]) == (1, 1)


@pytest.mark.usefixtures("topics")
def test_what_is_not_there_is_one_line(scene: Scene, dead_letters: OrderWorker):
    publish(scene.kafka, scene.topics.dead_letter, [b"one"], partition=0)
    dead_letters.here("show", "9:0").assert_one_line(2, "9:0", "has no partition 9")
    dead_letters.here("redrive", "0:0", "0:1").assert_one_line(1, "0:1", "no dead letter is there yet")
    dead_letters.here("redrive", "0:0").assert_one_line(1, "nothing to redrive: 1 from another topic")
    dead_letters.here("redrive", "--code", "data_error").assert_one_line(1, "nothing to redrive")
    assert dead_letters.here("list", "--code", "data_error").out == "no dead letters like that\n"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ("show 1", "like 2:17"),
        ("show 1:99999999999999999999", "like 2:17"),
        ("redrive --code nonsense", "the codes are empty_value, too_large"),
        ("redrive --from 2026-11-23T10:00:00", "the time zone is missing"),
        ("list --from 2026-11-24T00:00:00Z --to 2026-11-23T00:00:00Z", "is not before"),
        ("redrive --set nonsense", "write FIELD=JSON"),
        ("redrive --set order_id=abc", "text needs its quotes"),
    ],
)
def test_a_wrong_call_is_one_line_before_any_server_is_asked(arguments: str, text: str):
    OrderWorker({}).here("dead-letters", *arguments.split()).assert_one_line(2, text)


def test_a_server_that_is_away_is_named(dead_letters: OrderWorker, topics: TopicNames):
    for name, value in (
        ("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1"),
        ("DATABASE_URL", "postgresql://postgres:s3cret@127.0.0.1:1/x"),
    ):
        for command in ("list", "redrive --execute"):
            away = dead_letters.here(*command.split(), **{f"ORDER_WORKER_{name}": value})
            away.assert_one_line(1, "cannot reach", "127.0.0.1:1")
