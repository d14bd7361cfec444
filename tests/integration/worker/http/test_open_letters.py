"""Which dead letters count as open: those that nobody has redriven or settled."""

from collections import Counter
from datetime import UTC, datetime
from uuid import uuid4

from sqlalchemy.ext.asyncio import AsyncSession

from contracts.events import DeadLetterCode
from db.worker import redrives, settled_letters
from db.worker.redrive_records import Claim, Run
from db.worker.settled_letters import LetterKey, ToSettle
from tests.support.publishing import publish
from tests.support.topic_names import TopicNames
from worker.app import build
from worker.core.dead_letter import dead_letter_headers
from worker.core.triage import Source
from worker.settings import read_settings

PLACED_MS = 1_795_000_000_000


async def test_a_letter_is_open_until_it_is_redriven_or_settled(
    env: dict[str, str], topics: TopicNames, session: AsyncSession
):
    for offset in range(4):
        code = DeadLetterCode.NOT_JSON if offset < 3 else DeadLetterCode.TOO_LARGE
        source = Source(topics.order_placed, 0, offset)
        headers = dead_letter_headers(code, "why", "", source, PLACED_MS, datetime.now(UTC), ())
        kafka = env["ORDER_WORKER_KAFKA_BOOTSTRAP_SERVERS"]
        publish(kafka, topics.dead_letter, [b"no order"], partition=0, headers=headers)
    settings = {name.removeprefix("ORDER_WORKER_").lower(): value for name, value in env.items()}
    worker, _ = build(read_settings(**settings))
    try:
        assert await worker.open_letters.counted() == Counter(not_json=3, too_large=1)
        run = Run(uuid4(), "group", "Ann", topics.dead_letter)
        claim = Claim(uuid4(), 0, 0, (topics.order_placed, 0, 0), "not_json", "", 0, 0)
        await redrives.add_redrives(session, run, [claim])
        key = LetterKey(topics.order_placed, 0, 3, PLACED_MS)
        await settled_letters.add_settled(
            session, topics.dead_letter, [ToSettle(key, 0, 3)], requested_by="Ann", note="of a test"
        )
        await session.commit()
        assert await worker.open_letters.counted() == Counter(not_json=2)
        sample = worker.metrics.registry.get_sample_value
        await worker.open_letters.look()
        assert sample("order_worker_open_dead_letters", {"code": "not_json"}) == 2
        assert sample("order_worker_open_dead_letters", {"code": "too_large"}) == 0
    finally:
        await worker.engine.dispose()
        await worker.inquiries.engine.dispose()
