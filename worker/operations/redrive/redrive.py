"""`dead-letters redrive`: dead letters into the input topic again, each once, a few first.

    redrive
     ├ recover    what a killed run sent, and what came of it
     ├ claim      one transaction: a row a letter, before anything is sent; from here on the set is frozen
     └ steps      1, 2, 5, 10, … letters: send in Kafka transactions, mark, wait for the workers, look

A row is claimed, then its letter is sent, then it is marked: killed anywhere, the next run finds out.
"""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field, replace
from uuid import UUID, uuid4

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from db.statuses import RedriveStatus
from db.worker import redrives
from db.worker.redrive_records import Redrive, Run
from worker.core.dead_letter import REDRIVE_HEADER
from worker.errors import CommandError
from worker.failures import DATABASE_ERRORS
from worker.kafka.clients import kafka_admin
from worker.kafka.consuming.reading import records
from worker.kafka.group import members
from worker.kafka.offsets import topic_reader
from worker.operations.dead_letters.letter import Choice, Group, LetterPlace, LetterTally, read_letter
from worker.operations.dead_letters.read import LETTERS, NOTHING, shop_sessions
from worker.operations.redrive.canary import failed_too_often, planned, steps
from worker.operations.redrive.claim import Claimer, Selection, changed, left_out_text, original_record
from worker.operations.redrive.edits import Edits, edits_of
from worker.operations.redrive.forecast import Expected, Forecast
from worker.operations.redrive.json_edit import Change
from worker.operations.redrive.recover import EarlierRun, recover
from worker.operations.redrive.results import Results, Tails, letter_ends
from worker.operations.redrive.send import MAX_BYTES, MAX_LETTERS, Parcel, fenced, input_producer, send
from worker.operations.replay.rehearse import RecordReader
from worker.operations.screen import Bar, progress
from worker.operations.throttle import Throttle
from worker.operations.turn import turn_of
from worker.settings import Settings


@dataclass(frozen=True, slots=True)
class RedriveRequest:
    """What an operator asks for."""

    choice: Choice
    edits: Edits = field(default_factory=Edits)
    max_failures: float = 0.1
    rate: float | None = None
    """letters a second; None: as fast as they are handled"""
    by: str = "unknown"
    patience_seconds: float = 60.0
    quiet: bool = False


@dataclass(frozen=True, slots=True)
class RedriveRehearsal:
    """What a redrive would do now."""

    selection: Selection
    steps: list[int]
    unfinished: int
    """redrives of earlier runs without a result"""
    expected: list[Expected] = field(default_factory=list)
    """what a worker would make of them now, in this order"""


@dataclass(slots=True)
class RedriveReport:
    """What a redrive did."""

    run_id: UUID
    earlier: EarlierRun
    selection: Selection
    sent: int = 0
    results: Counter[str] = field(default_factory=Counter)
    failures: list[Group] = field(default_factory=list)
    gone: int = 0
    """not sent: the letter was deleted meanwhile (retention)"""
    stopped: bool = False
    """too many failed; what was not sent is free for a later run"""
    released: int = 0


async def rehearse(settings: Settings, request: RedriveRequest) -> RedriveRehearsal:
    """Choose, check and edit as a redrive would, in a transaction that is rolled back."""
    async with (
        topic_reader(settings, settings.dead_letter_topic) as letters,
        topic_reader(settings, settings.order_placed_topic) as inputs,
        shop_sessions(settings, "dead-letters redrive") as sessions,
        turn_of(settings, sessions, LETTERS),
        sessions() as session,
    ):
        unfinished = await redrives.count_unfinished(session, settings.group_id)
        forecast = Forecast(RecordReader(settings, sessions, inputs))
        claimer = Claimer(
            settings, letters, inputs, session, _run(settings, request), request.edits, forecast.add
        )
        selection = await claimer.claim(request.choice, quiet=request.quiet)
        await session.rollback()
    _require_some(selection, bool(unfinished))
    return RedriveRehearsal(selection, planned(selection.letters), unfinished, forecast.expected())


async def redrive(settings: Settings, request: RedriveRequest) -> RedriveReport:
    """Send each chosen letter once, ever, and see what came of it.

    Raises CommandError where no worker runs, where nothing is chosen, and where the workers stop meanwhile:
    what was not sent is free again then.
    """
    async with (
        topic_reader(settings, settings.dead_letter_topic) as letters,
        topic_reader(settings, settings.order_placed_topic) as inputs,
        shop_sessions(settings, "dead-letters redrive") as sessions,
        kafka_admin(settings) as admin,
    ):
        await require_worker(admin, settings)
        results = Results(settings, sessions, letters, inputs, admin, request.patience_seconds)
        async with AsyncExitStack() as stack:
            async with turn_of(settings, sessions, LETTERS):
                async with sessions() as session:
                    claiming = await redrives.list_claiming_runs(
                        session, settings.group_id, settings.order_placed_topic
                    )
                producer = await stack.enter_async_context(input_producer(settings, "redrive"))
                earlier = await recover(results, claiming)
                run = _run(settings, request)
                tails = await letter_ends(letters, settings)
                async with sessions.begin() as session:
                    claimer = Claimer(settings, letters, inputs, session, run, request.edits)
                    selection = await claimer.claim(request.choice, quiet=request.quiet)
            _require_some(selection, bool(earlier.released or earlier.results))
            report = RedriveReport(run.run_id, earlier, selection)
            return await _SteppedRun(results, producer, request, report, tails).run()


def _run(settings: Settings, request: RedriveRequest) -> Run:
    return Run(uuid4(), settings.group_id, request.by, settings.dead_letter_topic)


class _SteppedRun:
    """Step by step through the claimed letters of one run."""

    def __init__(
        self,
        results: Results,
        producer: AIOKafkaProducer,
        request: RedriveRequest,
        report: RedriveReport,
        tails: Tails,
    ) -> None:
        self._results, self._producer, self._request = results, producer, request
        self._settings, self._sessions = results.settings, results.sessions
        self._report, self._tails, self._failed = report, tails, LetterTally()
        self._in_doubt: set[UUID] = set()
        self._throttle = Throttle(request.rate)

    async def run(self) -> RedriveReport:
        report = self._report
        try:
            with progress("redriving", report.selection.letters, quiet=self._request.quiet) as bar:
                for size in steps():
                    if not await self._step(size, bar) or self._should_stop():
                        break
            self._require_all_sent()
        finally:
            # Also after an error and Ctrl-C. Of what is in doubt, the next run finds out whether it was sent.
            with suppress(*DATABASE_ERRORS, OSError):
                async with self._sessions.begin() as session:
                    report.released = await redrives.release_redrives(session, report.run_id, self._in_doubt)
        report.failures = self._failed.groups()
        return report

    def _require_all_sent(self) -> None:
        report = self._report
        if not report.stopped and report.sent + report.gone < report.selection.letters:
            # Their rows are no longer there: another run has freed them, and then taken them for itself.
            raise fenced(self._settings)

    def _should_stop(self) -> bool:
        results = self._report.results
        failed, handled = results[RedriveStatus.FAILED], results.total()
        self._report.stopped = failed_too_often(failed, handled, self._request.max_failures)
        return self._report.stopped

    async def _step(self, size: int, bar: Bar) -> bool:
        """False: there was nothing left to send."""
        async with self._sessions() as session:
            claimed = await redrives.list_claimed(session, self._report.run_id, size)
        if not claimed:
            return False
        sent: list[Redrive] = []
        async for parcels in self._parcels(claimed):
            sent += await self._send(parcels, claimed)
        await self._forget(claimed, sent)
        await self._record_results(sent)
        bar.advance(len(claimed))
        return True

    async def _parcels(self, claimed: Sequence[Redrive]) -> AsyncIterator[list[Parcel]]:
        """What is to be sent, as much at a time as goes into one transaction."""
        most = self._throttle.at_once(MAX_LETTERS)
        parcels: list[Parcel] = []
        async for parcel in self._packed(claimed):
            if parcels and (len(parcels) >= most or sum(p.size for p in parcels) + parcel.size > MAX_BYTES):
                yield parcels
                parcels = []
            parcels.append(parcel)
        if parcels:
            yield parcels

    async def _packed(self, claimed: Sequence[Redrive]) -> AsyncIterator[Parcel]:
        by_place = {LetterPlace(r.letter_partition, r.letter_offset): r for r in claimed}
        spans: dict[TopicPartition, tuple[int, int]] = {}
        for place in sorted(by_place):
            partition = TopicPartition(self._settings.dead_letter_topic, place.partition)
            spans[partition] = (spans.get(partition, (place.offset, 0))[0], place.offset + 1)
        first = await self._results.letters.beginning_offsets(list(spans))
        left = {p: (max(start, first[p]), end) for p, (start, end) in spans.items()}
        async for record in records(self._results.letters, left):
            one = by_place.get(LetterPlace(record.partition, record.offset))
            original = one and await original_record(self._results.inputs, read_letter(record), record)
            if one and original:
                original, _ = changed(original, [Change(name, new) for name, _, new in edits_of(one)])
                headers = [*original.headers, (REDRIVE_HEADER, str(one.id).encode())]
                yield Parcel(one.id, one.input_partition, original.key, original.value, headers)

    async def _send(self, parcels: Sequence[Parcel], claimed: Sequence[Redrive]) -> list[Redrive]:
        await asyncio.sleep(self._throttle.pause(len(parcels), time.monotonic()))
        self._in_doubt = {parcel.id for parcel in parcels}
        offsets = await send(self._producer, self._settings, parcels)
        await self._mark(offsets)
        self._in_doubt = set()
        self._report.sent += len(offsets)
        return [replace(one, input_offset=offsets[one.id]) for one in claimed if one.id in offsets]

    async def _mark(self, offsets: dict[UUID, int]) -> None:
        async with self._sessions.begin() as session:
            await redrives.mark_sent(session, offsets)

    async def _forget(self, claimed: Sequence[Redrive], sent: Sequence[Redrive]) -> None:
        """Those whose letter was deleted since it was chosen."""
        gone = {one.id for one in claimed} - {one.id for one in sent}
        if gone:
            async with self._sessions.begin() as session:
                await redrives.drop_redrives(session, gone)
            self._report.gone += len(gone)

    async def _record_results(self, sent: Sequence[Redrive]) -> None:
        if not sent:
            return
        outcomes = await self._results.wait_for(sent, self._tails)
        async with self._sessions.begin() as session:
            await redrives.finish_redrives(session, [outcome.finish for outcome in outcomes])
        for outcome in outcomes:
            self._report.results[outcome.finish.status.value] += 1
            if outcome.letter:
                self._failed.add(outcome.letter)
        if len(outcomes) < len(sent):
            raise CommandError(
                f"of {len(sent) - len(outcomes):,} letters that were sent there is neither a decision nor a"
                " new dead letter; run the same again, and it looks once more"
            )


async def require_worker(admin: AIOKafkaAdminClient, settings: Settings) -> None:
    if not await members(admin, settings.group_id):
        raise CommandError(
            f"no worker of the group {settings.group_id} is running, so nobody would decide them: start one"
            " with `order-worker run`; nothing was sent"
        )


def _require_some(selection: Selection, other_work: bool) -> None:
    """Raises CommandError where there is nothing to do at all."""
    if selection.letters or other_work:
        return
    if not selection.left_out:
        raise CommandError(f"nothing to redrive: {NOTHING}")
    raise CommandError(f"nothing to redrive: {left_out_text(selection)}")
