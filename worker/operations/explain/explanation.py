"""The conclusion about one order, in one sentence, and the facts behind it. Pure.

Collected by `explain`, shown by `explanation_screen`; JSON as it is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from contracts.events import Reason, ReasonCode
from db.statuses import OrderStatus
from db.worker.skips import SkippedSpan
from worker.operations.explain.order_facts import Facts, Place, RecordStanding, State


@dataclass(frozen=True, slots=True)
class Explanation:
    """The state of the order in one sentence, and the facts behind it."""

    order_id: UUID
    state: State
    summary: str
    facts: Facts


def explained(facts: Facts) -> Explanation:
    """The conclusion from the facts."""
    state = _state(facts)
    return Explanation(facts.order_id, state, _SENTENCES[state](facts) + _links(facts), facts)


def explained_by_rows(facts: Facts) -> Explanation:
    """The conclusion where the topics could not be read: there is a decision or an order."""
    if facts.decision is None:
        assert facts.order is not None
        summary = f"Ordered at {_time(facts.order.created_at)}, and not in the ledger."
        return Explanation(facts.order_id, State.DIRECT, summary, facts)
    outcome = "whether it was published is not known: its records could not be read"
    state = State(facts.decision.outcome)
    said = _confirmed if state is State.CONFIRMED else _rejected
    return Explanation(facts.order_id, state, said(facts, outcome) + _links(facts), facts)


def _state(facts: Facts) -> State:
    if facts.decision is not None:
        return State(facts.decision.outcome)
    standings = {record.standing for record in facts.inputs}
    if RecordStanding.WAITING in standings:
        return State.WAITING
    if RecordStanding.PASSED_OVER in standings:
        return State.PASSED_OVER
    if facts.dead_letters or RecordStanding.INVALID in standings:
        return State.DEAD_LETTER
    return State.DIRECT if facts.order is not None else State.NOT_FOUND


def _confirmed(facts: Facts, published: str = "") -> str:
    assert facts.decision is not None
    decided = f"{_since(facts)}Confirmed at {_time(facts.decision.decided_at)} from {facts.decision.source}"
    return f"{decided}; {published}." if published else f"{decided}, {_published(facts)}."


def _since(facts: Facts) -> str:
    """What has happened since the confirmation."""
    if facts.order is None:
        return "Gone from the table of orders: deleted since, or not restored. "
    return "Cancelled since. " if facts.order.status == OrderStatus.CANCELLED else ""


def _links(facts: Facts) -> str:
    """The rejected order that it was before, and the one under which it was placed again."""
    old, new = facts.supersedes, facts.reopened_as
    before = f" It supersedes {old.order_id}, which was {old.outcome or 'not decided'}." if old else ""
    if new is None:
        return before
    prices = " without the prices that the buyer saw" if new.drop_prices else ""
    by = f" by {new.requested_by} at {_time(new.requested_at)}" if new.requested_at else ""
    now = f"was {new.outcome}" if new.outcome else "is not decided yet"
    return f"{before} It was placed again as {new.order_id}{prices}{by}, which {now}."


def _rejected(facts: Facts, published: str = "") -> str:
    assert facts.decision is not None
    reasons = [reason_text(reason) for reason in facts.decision.reasons]
    left = len(reasons) - 3
    more = f" and {left} reason{'s' * (left != 1)} more" if left > 0 else ""
    because = f" because {'; '.join(reasons[:3])}{more}" if reasons else "; its reasons were pruned"
    outcome = published[:1].upper() + published[1:] if published else f"It was {_published(facts)}"
    return f"Rejected at {_time(facts.decision.decided_at)} from {facts.decision.source}{because}. {outcome}."


def _published(facts: Facts) -> str:
    assert facts.decision is not None
    if not facts.publications:
        return f"{_not_published(facts, facts.decision.source)}{_tombstone(facts)}"
    first, *again = facts.publications
    if not again:
        return f"published once at {first.place}{_tombstone(facts)}"
    places = ", ".join(f"{o.place}{' (republished)' * o.republished}" for o in facts.publications[:4])
    more = ", …" * (len(again) > 3)
    return f"published {len(facts.publications)} times: at {places}{more}{_tombstone(facts)}"


def _tombstone(facts: Facts) -> str:
    last = next((o for o in reversed(facts.outcomes) if o.tombstone), None)
    return f"; a tombstone is at {last.place}, which no worker writes" if last else ""


def _not_published(facts: Facts, source: Place) -> str:
    if facts.withheld:
        return f"not published yet, because its topic refuses it: {facts.withheld}"
    committed = facts.committed.get(source.partition)
    if committed is None or committed <= source.offset:
        return f"not published yet: the group {facts.group_id} has not committed past that record"
    if facts.unread:
        return "and no publication is in what was read"
    never = "" if facts.decision and facts.decision.pruned else ", or never published"
    return f"and no publication is there any more: it was deleted (retention){never}"


def _waiting(facts: Facts) -> str:
    place = next(r.place for r in facts.inputs if r.standing is RecordStanding.WAITING)
    committed = facts.committed.get(place.partition)
    where = (
        f"nothing in that partition was ever decided by the group {facts.group_id}"
        if committed is None
        else f"{place.offset - committed:,} offsets before it wait for the group {facts.group_id} as well"
    )
    nobody = "" if facts.members else ", in which nobody is now"
    return f"Waiting: its record is at {place}; {where}{nobody}."


def _dead_letter(facts: Facts) -> str:
    if not facts.dead_letters:
        (record, *_) = [r for r in facts.inputs if r.standing is RecordStanding.INVALID]
        return f"No order: {record.place} names this id, and is or will be a dead letter: {record.why}."
    letter = facts.dead_letters[-1]
    path = f"{letter.path}: " if letter.path else ""
    source = f", from {letter.source}" if letter.source else ""
    return f"Dead letter because {path}{letter.message} ({letter.code}): {letter.place}{source}."


def _passed_over(facts: Facts) -> str:
    place = next(r.place for r in facts.inputs if r.standing is RecordStanding.PASSED_OVER)
    if facts.publications:
        return (
            f"Not in the ledger, although its outcome was published at {facts.publications[0].place}:"
            f" the ledger has lost it. Its record is at {place}."
        )
    if skip := _skip_of(facts, place):
        return (
            f"Not decided: its record at {place} could not be read, and was skipped by"
            f" {skip.requested_by} at {_time(skip.requested_at)}: {skip.note}."
            " A replay from there would decide it."
        )
    return (
        f"Not decided, although the group {facts.group_id} has committed past its record at {place},"
        f" and no dead letter of it {'is in what was read' if facts.unread else 'is there'}:"
        " a replay from there would decide it."
    )


def _skip_of(facts: Facts, place: Place) -> SkippedSpan | None:
    return next(
        (
            skip
            for skip in facts.skips
            if skip.kind == "skipped"
            and skip.partition == place.partition
            and skip.from_offset <= place.offset < skip.to_offset
        ),
        None,
    )


def _direct(facts: Facts) -> str:
    assert facts.order is not None
    time = _time(facts.order.created_at)
    if facts.unread:
        return (
            f"Ordered at {time}, and not in the ledger: through `create_order`, unless its record"
            " is one of those that were not looked at."
        )
    return f"Ordered at {time} through `create_order` and not through Kafka: there is no event of it."


def _not_found(facts: Facts) -> str:
    if facts.unread:
        said = "Not decided, and no record of it is among those that wait, nor among the latest dead letters"
    else:
        said = "Not decided: no record of it is in the input or among the dead letters"
    return f"{said}{_lost_with(facts.skips)}."


def _lost_with(skips: Sequence[SkippedSpan]) -> str:
    """Skipped or deleted offsets that may have held the order: the latest span, and how many others."""
    if not skips:
        return ""
    *others, latest = sorted(skips, key=lambda skip: skip.requested_at)
    offsets = latest.to_offset - latest.from_offset
    if latest.kind == "skipped":
        fate = f"that {latest.requested_by} skipped at {_time(latest.requested_at)}"
    else:
        were, they = ("was", "it was") if offsets == 1 else ("were", "they were")
        fate = f"that {were} deleted before {they} decided (found {_time(latest.requested_at)})"
    more = sum(skip.to_offset - skip.from_offset for skip in others)
    also = f", or among {more:,} that were skipped or deleted before" if more else ""
    return f"; it may have been among {offsets:,} offset{'s' * (offsets != 1)} {fate}{also}"


_SENTENCES = {
    State.CONFIRMED: _confirmed,
    State.REJECTED: _rejected,
    State.WAITING: _waiting,
    State.DEAD_LETTER: _dead_letter,
    State.PASSED_OVER: _passed_over,
    State.DIRECT: _direct,
    State.NOT_FOUND: _not_found,
}


def reason_text(reason: Reason) -> str:
    """One reason of a rejection, in words."""
    match reason.code:
        case ReasonCode.UNKNOWN_USER:
            return "there was no such user"
        case ReasonCode.UNKNOWN_PRODUCT:
            return f"there was no product {reason.product_id}"
        case ReasonCode.INSUFFICIENT_STOCK:
            return f"product {reason.product_id}: {reason.requested} requested, {reason.available} available"
        case ReasonCode.PRICE_CHANGED:
            return (
                f"product {reason.product_id} cost {reason.current_unit_price}"
                f" and not {reason.expected_unit_price}"
            )
        case _:  # of a newer worker
            return f"{reason.code}, which this version does not know"


def _time(time: datetime) -> str:
    return time.astimezone(UTC).isoformat(sep=" ", timespec="milliseconds").replace("+00:00", "Z")
