"""Letters to call `order-worker dead-letters` on, and what became of them."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from uuid import UUID, uuid4

from tests.support.builders import line, order_value
from tests.support.deadline import eventually
from tests.support.order_worker import OrderWorker
from tests.support.promises import Scene
from tests.support.subscriber import Message, read_topic

PATH = "items.0.quantity"
FIX = ("--set", f"{PATH}=2")


def killed_at(dead_letters: OrderWorker, step: str) -> OrderWorker:
    """`dead_letters`, which kills itself there (`tests.support.redrive_killed`)."""
    return dead_letters.python("-m", "tests.support.redrive_killed", *step.split())


def place_broken(scene: Scene, number: int, partition: int = 1) -> list[UUID]:
    """Places `number` orders with quantity 0 (`FIX` fixes them); their ids, once they are dead letters."""
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


def is_stopped(pid: int) -> bool:
    """Whether the process has been sent SIGSTOP, or has sent it to itself."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def redriven(scene: Scene) -> list[Message]:
    """The records of the input topic that a redrive has sent."""
    sent = read_topic(scene.kafka, scene.topics.order_placed)
    return [message for message in sent if message.header("redrive.id")]


def statuses(scene: Scene) -> Counter[str]:
    """How far the redrives have come, by PostgreSQL's table."""
    rows = scene.shop.sql("SELECT status, count(*) AS times FROM dead_letter_redrives GROUP BY status")
    return Counter({row["status"]: row["times"] for row in rows})


def assert_each_sent_once(scene: Scene) -> None:
    """A record for each redrive, and a redrive for each record, at the place that the table names."""
    places = Counter((m.header("redrive.id"), m.partition, m.offset) for m in redriven(scene))
    rows = scene.shop.sql("SELECT id, input_partition, input_offset FROM dead_letter_redrives")
    assert places == Counter((str(r["id"]), r["input_partition"], r["input_offset"]) for r in rows)
