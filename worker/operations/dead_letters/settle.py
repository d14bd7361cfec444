"""`dead-letters settle`: marks dead letters as dealt with, on record; they are no longer open."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from db.worker.settled_letters import ToSettle, add_settled
from worker.errors import CommandError
from worker.kafka.offsets import topic_reader
from worker.operations.dead_letters.known import Found, KnownOfLetters, key_of, look_up
from worker.operations.dead_letters.letter import Choice, Letter
from worker.operations.dead_letters.read import LETTERS, NOTHING, chosen, letter_spans, shop_sessions
from worker.operations.turn import turn_of
from worker.settings import Settings

MAX_SHOWN: Final = 20


@dataclass(frozen=True, slots=True)
class SettleRequest:
    """The operator's request. `note` None: not given, which is allowed in a rehearsal."""

    choice: Choice
    requested_by: str
    note: str | None


@dataclass(frozen=True, slots=True)
class SettledLine:
    """One dead letter, its order id, and what was decided for that."""

    place: str
    code: str
    path: str
    failed_at: datetime | None
    order_id: UUID | None
    outcome: str | None


@dataclass(slots=True)
class SettlePlan:
    """The dead letters to settle, the first ones by name; `settled_before` are settled already."""

    requested_by: str
    note: str | None
    letters: int = 0
    settled_before: int = 0
    first: list[SettledLine] = field(default_factory=list)
    executed: bool = False


async def settle(settings: Settings, asked: SettleRequest, *, execute: bool) -> SettlePlan:
    """Find the chosen dead letters and, with `execute`, mark all of them or none.

    The set is fixed at the start. Raises CommandError if there is nothing to settle.
    """
    plan = SettlePlan(asked.requested_by, asked.note)
    async with (
        topic_reader(settings, settings.dead_letter_topic) as consumer,
        shop_sessions(settings, "settle") as sessions,
        turn_of(settings, sessions, LETTERS) if execute else nullcontext(),
        sessions() as session,
    ):
        spans = await letter_spans(consumer, settings, asked.choice)
        async for found in chosen(consumer, spans, asked.choice, "choosing"):
            await _settle_some(session, settings.dead_letter_topic, found, plan, execute=execute)
        if not plan.letters:
            before = plan.settled_before
            raise CommandError(f"nothing to settle: {f'{before:,} settled already' if before else NOTHING}")
        if execute:
            await session.commit()
            plan.executed = True
    return plan


async def _settle_some(
    session: AsyncSession, topic: str, found: Sequence[Found], plan: SettlePlan, *, execute: bool
) -> None:
    known = await look_up(session, topic, found)
    # One source may have several letters: one row is for all of them.
    open_ones = {key_of(topic, letter): letter for letter, _ in found if not known.settled(letter)}
    plan.settled_before += sum(known.settled(letter) is not None for letter, _ in found)
    settled = len(open_ones)
    room = MAX_SHOWN - len(plan.first)
    plan.first += [_line(letter, known) for letter in list(open_ones.values())[:room]]
    if execute:
        assert plan.note is not None
        rows = [ToSettle(key, *letter.place) for key, letter in open_ones.items()]
        # Fewer where another settle, which was waited for in vain, is at the same ones.
        settled = await add_settled(session, topic, rows, requested_by=plan.requested_by, note=plan.note)
    plan.letters += settled
    plan.settled_before += len(open_ones) - settled


def _line(letter: Letter, known: KnownOfLetters) -> SettledLine:
    row = known.decision(letter)
    return SettledLine(
        str(letter.place),
        letter.code,
        letter.path,
        letter.failed_at,
        known.order_id(letter),
        row.outcome if row else None,
    )
