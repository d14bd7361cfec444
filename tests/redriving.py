"""`order-worker dead-letters` as a user calls it, and letters to call it on."""

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from tests.builders import line, order_value
from tests.deadline import eventually
from tests.promises import Scene
from tests.subscriber import Message, read_topic

ROOT = Path(__file__).parent.parent
PATH = "items.0.quantity"
FIX = ("--set", f"{PATH}=2")


@dataclass(frozen=True)
class Result:
    """How a call ended."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """What was asked for with --json."""
        return json.loads(self.out)

    def assert_one_line(self, code: int, *texts: str) -> None:
        """It failed, and says so in one line that holds these."""
        assert (self.code, self.err.count("\n")) == (code, 1), self.err
        assert self.err.startswith("error: ")
        for text in texts:
            assert text in self.err


@dataclass(frozen=True)
class DeadLetters:
    """`order-worker dead-letters` in one test's environment."""

    env: Mapping[str, str]

    def __call__(self, *arguments: str) -> Result:
        return ended(self.start(*arguments))

    def start(self, *arguments: str, killed_at: str | None = None, **settings: str) -> Any:
        """The process, which goes on beside the test; it may kill itself (`tests.redrive_killed`)."""
        program = ["worker"] if killed_at is None else ["tests.redrive_killed", *killed_at.split()]
        return subprocess.Popen(
            [sys.executable, "-m", *program, "dead-letters", *arguments],
            cwd=ROOT,
            env={**os.environ, **self.env, **settings},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )


def ended(process: Any) -> Result:
    out, err = process.communicate(timeout=90)
    return Result(process.returncode, out.decode(), err.decode())


def place_broken(scene: Scene, number: int, partition: int = 1) -> list[UUID]:
    """So many orders of nothing (`FIX` mends them); their ids, once they are dead letters."""
    ids = [uuid4() for _ in range(number)]
    scene.place([order_value(line(1, 0), order_id=i) for i in ids], partition=partition)
    texts = {str(i) for i in ids}
    eventually(lambda: texts <= {m.event["order_id"] for m in scene.dead_letters()})
    return ids


def assert_promises(scene: Scene, ids: list[UUID], dead_letters: int, partitions: Sequence[int]) -> None:
    """Those of the scene, of these orders and one more in each of the partitions that a redrive sent to.

    The mark of a transaction, behind the last record, counts as lag until a record follows it.
    """
    more = [uuid4() for _ in partitions]
    for partition, order_id in zip(partitions, more, strict=True):
        scene.place([order_value(line(1), order_id=order_id)], partition=partition)
    scene.wait_until_drained()
    scene.assert_promises(ids + more, dead_letters)


def redriven(scene: Scene) -> list[Message]:
    """The records of the input topic that a redrive has sent."""
    sent = read_topic(scene.kafka, scene.topics.order_placed)
    return [message for message in sent if message.header("redrive.id")]


def statuses(scene: Scene) -> Counter[str]:
    """How far the redrives have come, by PostgreSQL's table."""
    rows = scene.shop.sql("SELECT status, count(*) AS times FROM dead_letter_redrives GROUP BY status")
    return Counter({row["status"]: row["times"] for row in rows})


def assert_each_sent_once(scene: Scene) -> None:
    """A record for each redrive, and a redrive for each record, at the place that the table tells."""
    places = Counter((m.header("redrive.id"), m.partition, m.offset) for m in redriven(scene))
    rows = scene.shop.sql("SELECT id, input_partition, input_offset FROM dead_letter_redrives")
    assert places == Counter((str(r["id"]), r["input_partition"], r["input_offset"]) for r in rows)
