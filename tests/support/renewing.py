"""What the tests of PostgreSQL's and of Kafka's credentials share."""

from pathlib import Path
from uuid import UUID, uuid4

from tests.support.builders import line, order_value
from tests.support.promises import Scene
from tests.support.worker_process import WorkerProcess

# Of the tests: the limit of refusals, where it is to pass, and the longest pause between two attempts.
SHORT, PAUSE_SECONDS = "4", "0.3"
EXIT_REFUSED = 4


def place_some(scene: Scene) -> list[UUID]:
    ids = [uuid4() for _ in range(8)]
    scene.place([order_value(line(1, 1), order_id=i) for i in ids])
    return ids


def check_more_orders(scene: Scene, placed: list[UUID]) -> None:
    """Some more orders are decided, and everything promised of all of them holds."""
    placed.extend(place_some(scene))
    scene.wait_until_drained()
    scene.assert_promises(placed)


def assert_no_secret(worker: WorkerProcess, *secrets: str) -> None:
    for secret in secrets:
        assert secret not in worker.log


def replace_file(path: Path, content: str) -> Path:
    """Replace the file as a tool that rotates secrets does: never half written."""
    new = path.with_name(path.name + ".new")
    new.write_text(content)
    return new.replace(path)
