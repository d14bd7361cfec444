"""What the lists show: a page of orders, of rejections or of dead letters. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from aiokafka import ConsumerRecord

from contracts.events import DeadLetterCode
from db.worker.order_pages import OrderEntry
from worker.http.page.overview import Rejection, rejections
from worker.http.page.parameters import Edges
from worker.http.page.tail import Tail
from worker.kafka.consuming.unreadable import UnreadableCount
from worker.operations.dead_letters.known import KnownOfLetters
from worker.operations.dead_letters.letter import Letter, order_id_of, read_letter

ORDERS_ON_A_PAGE: Final = 50
OPEN: Final = "open"


@dataclass(frozen=True, slots=True)
class OrdersFound:
    """A page of stored orders. `more`: there are older ones."""

    orders: tuple[OrderEntry, ...]
    more: bool


@dataclass(frozen=True, slots=True)
class RejectionsFound:
    """A page of rejections, out of `looked_at` records. There are more before `older`, if that is given."""

    rejections: tuple[Rejection, ...]
    looked_at: int
    older: Edges | None
    strange: int
    unreadable: tuple[UnreadableCount, ...]


@dataclass(frozen=True, slots=True)
class ListedLetter:
    """One dead letter. `state`: what became of it; empty where PostgreSQL does not say."""

    letter: Letter
    order_id: UUID | None
    state: str


@dataclass(frozen=True, slots=True)
class LettersFound:
    """As `RejectionsFound`. `trouble`: why their state is not known."""

    letters: tuple[ListedLetter, ...]
    looked_at: int
    older: Edges | None
    unreadable: tuple[UnreadableCount, ...]
    trouble: str = ""


def orders_found(entries: Sequence[OrderEntry]) -> OrdersFound:
    """From one row more than the page shows."""
    return OrdersFound(tuple(entries[:ORDERS_ON_A_PAGE]), len(entries) > ORDERS_ON_A_PAGE)


def rejections_found(tail: Tail, reason: str | None) -> RejectionsFound:
    """Only orders with the reason, each once."""
    found = rejections(tail)
    chosen = tuple(one for one in found.latest if reason is None or reason in one.codes)
    return RejectionsFound(chosen, tail.looked_at, _older(tail), found.strange, tail.unreadable)


def letters_found(tail: Tail, known: KnownOfLetters | None, trouble: str = "") -> LettersFound:
    """`known`: None, PostgreSQL did not answer."""
    listed = [_listed(record, known) for record in tail.records]
    return LettersFound(tuple(listed), tail.looked_at, _older(tail), tail.unreadable, trouble)


def _listed(record: ConsumerRecord, known: KnownOfLetters | None) -> ListedLetter:
    letter = read_letter(record)
    order_id = order_id_of(record.key, record.value)
    return ListedLetter(letter, order_id, state_of(letter, known) if known else "")


def state_of(letter: Letter, known: KnownOfLetters) -> str:
    """What an operator has done with the dead letter, as text; if nothing, whether its order is decided."""
    if settled := known.settled(letter):
        return f"settled by {settled.requested_by}: {settled.note}"
    if redrive := known.redrive(letter):
        return f"redriven: {redrive.status}" + (f", {redrive.result}" if redrive.result else "")
    decision = known.decision(letter)
    if decision is None:
        return OPEN
    if letter.code == DeadLetterCode.ORDER_ID_CONFLICT:
        return f"{OPEN}; its id is decided for another order"
    return f"{OPEN}; its order is {decision.outcome} since"


def _older(tail: Tail) -> Mapping[int, int] | None:
    return {partition: tail.read_from[partition] for partition in sorted(tail.cut)} or None
