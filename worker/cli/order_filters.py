"""Which decided orders a command is about: the options, and what they mean."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from worker.errors import UsageError

if TYPE_CHECKING:
    from db.worker.decided_orders import OrderFilter
    from worker.operations.orders.choose import Choice
    from worker.settings import Settings


class OutcomeChoice(StrEnum):
    """Which outcome."""

    CONFIRMED = "confirmed"
    REJECTED = "rejected"


class ReasonChoice(StrEnum):
    """Why an order was rejected, as the contract has it."""

    UNKNOWN_USER = "unknown_user"
    UNKNOWN_PRODUCT = "unknown_product"
    INSUFFICIENT_STOCK = "insufficient_stock"
    PRICE_CHANGED = "price_changed"


OutcomeOption = Annotated[OutcomeChoice | None, typer.Option("--outcome", help="Only these.")]
Reason = Annotated[
    ReasonChoice | None, typer.Option("--reason", help="Only orders that were rejected because of it.")
]
Product = Annotated[
    int | None,
    typer.Option(
        "--product",
        min=1,
        max=2**63 - 1,
        metavar="ID",
        help="Only orders with it: among the items if confirmed, among the reasons if rejected.",
    ),
]
User = Annotated[
    int | None, typer.Option("--user", min=1, max=2**63 - 1, metavar="ID", help="Only orders of this user.")
]
From = Annotated[
    str | None, typer.Option("--from", metavar="TIME", help="Decided then or later: 2026-11-23T10:00:00Z")
]
To = Annotated[str | None, typer.Option("--to", metavar="TIME", help="Decided before then.")]

Filters = tuple[OutcomeChoice | None, ReasonChoice | None, int | None, int | None, str | None, str | None]


def order_choice(
    settings: "Settings", filters: Filters, order_ids: list[str], from_file: Path | None, limit: int | None
) -> "Choice":
    """The orders to reopen: of these ids, of the file, or of the filters. UsageError for none, or two."""
    from worker.kafka.offsets import read_order_id
    from worker.operations.orders.choose import Choice
    from worker.operations.orders.ids_file import read_ids

    given = [any(one is not None for one in filters), bool(order_ids), from_file is not None]
    if sum(given) != 1:
        raise UsageError(
            "which orders? Give --order-id, or --from-file, or filters: --reason, --product, --user, --from,"
            " --to; --outcome rejected for all"
            if not any(given)
            else "give one of them: --order-id, --from-file, or filters like --reason and --from"
        )
    ids = tuple(read_order_id(text, "--order-id") for text in dict.fromkeys(order_ids))
    if from_file is not None:
        ids = read_ids(from_file, settings.message_max_bytes)
    return Choice(order_filter(*filters), ids, limit)


def order_filter(
    outcome: OutcomeChoice | None,
    reason: ReasonChoice | None,
    product: int | None,
    user: int | None,
    start: str | None,
    end: str | None,
) -> "OrderFilter":
    """Raises UsageError that names the option which is wrong."""
    from db.statuses import Outcome
    from db.worker.decided_orders import OrderFilter
    from db.worker.ledger import OutcomeFilter
    from worker.kafka.offsets import parse_time

    since = parse_time(start, "--from") if start is not None else None
    until = parse_time(end, "--to") if end is not None else None
    if since and until and since >= until:
        raise UsageError(f"--from {start} is not before --to {end}")
    if reason and outcome is OutcomeChoice.CONFIRMED:
        raise UsageError(f"--reason {reason.value}: a confirmed order has none; leave out one of the two")
    outcomes = OutcomeFilter(
        decided_from=since, decided_before=until, outcome=Outcome(outcome.value) if outcome else None
    )
    return OrderFilter(outcomes, reason.value if reason else None, product, user)
