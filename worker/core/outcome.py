"""Turns a decision into its outcome event, exactly as it is stored and published. Pure."""

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache

from contracts.events import OrderRejected, Reason, ReasonCode
from contracts.fields import time_text
from contracts.plain_order import PlainOrder
from db.decision import (
    Confirmed,
    InsufficientStock,
    PriceChanged,
    Refusal,
    Rejected,
    UnknownProduct,
    UnknownUser,
)


def event_json(order: PlainOrder, decision: Confirmed | Rejected, decided_at: datetime) -> str:
    """The outcome event as JSON text. This text goes to the ledger and to Kafka, byte for byte.

    Times are aware, money has two decimals.
    """
    if isinstance(decision, Confirmed):
        return _confirmed_json(order, decision, decided_at)
    return _rejected(order, decision.refusals, decided_at).model_dump_json(exclude_none=True)


def _confirmed_json(order: PlainOrder, decision: Confirmed, decided_at: datetime) -> str:
    """What `OrderConfirmed` would be as JSON (a property test compares them), in a third of the time.

    Every value is a number, a UUID, a time or money here: nothing needs to be escaped.
    """
    key, user_id, _, placed_at, lines = order
    total_cents, unit_prices = decision
    whole, cents = divmod(total_cents, 100)
    items = ",".join(
        [
            f'{{"product_id":{product_id},"quantity":{quantity},"unit_price":"{price}"}}'
            for (product_id, quantity, _), price in zip(lines, unit_prices, strict=True)
        ]
    )
    return (
        f'{{"order_id":"{key}","user_id":{user_id},"total_amount":"{whole}.{cents:02d}","items":[{items}],'
        f'"placed_at":"{placed_at}","decided_at":"{_utc_text(decided_at)}"}}'
    )


@lru_cache(16)  # a whole batch is decided at one time
def _utc_text(time: datetime) -> str:
    # In UTC: to the cache, equal times in two zones are one key.
    return time_text(time.astimezone(UTC))


def _rejected(order: PlainOrder, refusals: Sequence[Refusal], decided_at: datetime) -> OrderRejected:
    return OrderRejected(
        order_id=order.order_id,
        user_id=order.user_id,
        reasons=tuple(_reason(refusal) for refusal in refusals),
        retryable=all(isinstance(refusal, InsufficientStock) for refusal in refusals),
        placed_at=order.placed_at,
        decided_at=decided_at,
    )


def _reason(refusal: Refusal) -> Reason:
    match refusal:
        case UnknownUser():
            return Reason(code=ReasonCode.UNKNOWN_USER)
        case UnknownProduct(product_id):
            return Reason(code=ReasonCode.UNKNOWN_PRODUCT, product_id=product_id)
        case InsufficientStock(product_id, requested, available):
            return Reason(
                code=ReasonCode.INSUFFICIENT_STOCK,
                product_id=product_id,
                requested=requested,
                available=available,
            )
        case PriceChanged(product_id, expected, current):
            return Reason(
                code=ReasonCode.PRICE_CHANGED,
                product_id=product_id,
                expected_unit_price=expected,
                current_unit_price=current,
            )


def reason_codes(decision: Confirmed | Rejected) -> tuple[str, ...]:
    """The codes of a rejection, for counting; empty for a confirmation."""
    if isinstance(decision, Confirmed):
        return ()
    return tuple(str(_reason(refusal).code) for refusal in decision.refusals)
