"""What `place` says to a person when it is done."""

from worker.operations.place.place import Placed
from worker.settings import Settings


def placed_text(placed: Placed, settings: Settings) -> str:
    """What was placed on the first line; below, where to see what becomes of it."""
    return "\n".join([str(placed), "", *_where_to_look(placed.last_order_id, settings)])


def _where_to_look(order_id: str, settings: Settings) -> list[str]:
    return [
        "How far the workers are:   order-worker lag",
        f"What became of one order:  order-worker explain {order_id}",
        f"The operator's page:       {_page(settings)}",
    ]


def _page(settings: Settings) -> str:
    if not settings.http_port:
        return "at / of the address that a worker names in its log"
    # What listens at every address answers at this one.
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.http_host, settings.http_host)  # noqa: S104
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.http_port}/, while a worker runs here"
