"""Turns a decision into the event that tells it, exactly as it is stored and published. Pure."""

from collections.abc import Sequence
from datetime import datetime

from contracts.events import (
    ConfirmedItem,
    OrderConfirmed,
    OrderPlaced,
    OrderRejected,
    Reason,
    ReasonCode,
)
from db.decision import (
    Confirmed,
    InsufficientStock,
    PriceChanged,
    Refusal,
    Rejected,
    UnknownProduct,
    UnknownUser,
)


def event_json(order: OrderPlaced, decision: Confirmed | Rejected, decided_at: datetime) -> str:
    """The outcome event as JSON text. This text goes to the ledger and to Kafka, byte for byte."""
    if isinstance(decision, Confirmed):
        return _confirmed(order, decision, decided_at).model_dump_json()
    return _rejected(order, decision.refusals, decided_at).model_dump_json(exclude_none=True)


def _confirmed(order: OrderPlaced, decision: Confirmed, decided_at: datetime) -> OrderConfirmed:
    return OrderConfirmed(
        order_id=order.order_id,
        user_id=order.user_id,
        total_amount=decision.total_amount,
        items=tuple(
            ConfirmedItem(product_id=item.product_id, quantity=item.quantity, unit_price=price)
            for item, price in zip(order.items, decision.unit_prices, strict=True)
        ),
        placed_at=order.placed_at,
        decided_at=decided_at,
    )


def _rejected(order: OrderPlaced, refusals: Sequence[Refusal], decided_at: datetime) -> OrderRejected:
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
    return tuple(_reason(refusal).code.value for refusal in decision.refusals)
