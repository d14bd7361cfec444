"""The state of dead letters in PostgreSQL: redriven, settled, or their order decided meanwhile."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from aiokafka import ConsumerRecord
from sqlalchemy.ext.asyncio import AsyncSession

from db.bulk.rows import LedgerRow
from db.worker import ledger, redrives, settled_letters
from db.worker.redrive_records import Redrive, SourcePlace
from db.worker.settled_letters import LetterKey, LetterSettlement
from worker.operations.dead_letters.letter import Letter, LetterPlace, order_id_of

Found = tuple[Letter, ConsumerRecord]


@dataclass(frozen=True, slots=True)
class KnownOfLetters:
    """Of some letters of one topic."""

    topic: str
    redrives: Mapping[SourcePlace, Redrive]
    settlements: Mapping[LetterKey, LetterSettlement]
    orders: Mapping[LetterPlace, UUID]
    decisions: Mapping[UUID, LedgerRow]

    def redrive(self, letter: Letter) -> Redrive | None:
        return self.redrives.get(letter.source) if letter.source else None

    def settled(self, letter: Letter) -> LetterSettlement | None:
        return self.settlements.get(key_of(self.topic, letter))

    def order_id(self, letter: Letter) -> UUID | None:
        return self.orders.get(letter.place)

    def decision(self, letter: Letter) -> LedgerRow | None:
        """Of the order id that the letter has, whatever its content was."""
        order_id = self.order_id(letter)
        return self.decisions.get(order_id) if order_id else None


def key_of(topic: str, letter: Letter) -> LetterKey:
    """What the letter is known by. `topic`: the letter's, where it names no source."""
    if letter.source is None:
        return LetterKey(topic, *letter.place, -1)
    timestamp_ms = letter.source_timestamp_ms
    return LetterKey(*letter.source, -1 if timestamp_ms is None else timestamp_ms)


async def look_up(session: AsyncSession, topic: str, found: Sequence[Found]) -> KnownOfLetters:
    """The state of those dead letters of the topic."""
    ids = {letter.place: order_id_of(record.key, record.value) for letter, record in found}
    orders = {place: order_id for place, order_id in ids.items() if order_id}
    return KnownOfLetters(
        topic,
        await redrives.find_redrives(session, {letter.source for letter, _ in found if letter.source}),
        await settled_letters.find_settled(session, {key_of(topic, letter) for letter, _ in found}),
        orders,
        await ledger.find_outcomes(session, set(orders.values())) if orders else {},
    )
