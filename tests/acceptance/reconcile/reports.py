"""What `order-worker reconcile --json` reports, and a shop to report on."""

from tests.support.order_worker import OrderWorker, Result
from tests.support.promises import Scene
from tests.support.worker_process import Workers

Found = set[tuple[str, str | None, str]]


def judged(reconcile: OrderWorker, *arguments: str) -> Result:
    result = reconcile.here(*arguments, "--json")
    assert result.code in {0, 1}, result
    return result


def found(result: Result) -> Found:
    """Code, place and order (or product) of each discrepancy."""
    listed = result.document["found"]
    assert len(listed) == sum(result.document["discrepancies"].values())
    return {(d["code"], d["place"], str(d["order_id"] or d["product_id"])) for d in listed}


def drain(scene: Scene, workers: Workers, **settings: str) -> None:
    """Let a worker decide all there is, and end."""
    worker = workers.start(**settings)
    scene.wait_until_drained()
    assert worker.stop() == 0
