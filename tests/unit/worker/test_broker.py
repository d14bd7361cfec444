"""How polls are handed over; what the broker does with Kafka is shown where there is one."""

from contextvars import Context, copy_context
from typing import Any, cast

from faststream.kafka import TestKafkaBroker

from tests.support.builders import order_value, record
from worker.broker import make_broker, subscribe
from worker.settings import Settings


class Consumer:
    def __init__(self) -> None:
        self.handled: list[tuple[Any, Context]] = []

    async def handle_order_placed(self, records: Any) -> None:
        self.handled.append((records, copy_context()))


async def test_a_poll_is_handled_outside_of_the_context_that_keeps_its_records():
    """Found with 200 partitions: each timer and connection made meanwhile kept the records of a poll."""
    settings, consumer, records = Settings(), Consumer(), (record(order_value()),)
    broker = make_broker(settings)
    subscriber = subscribe(broker, settings, cast("Any", consumer))
    async with TestKafkaBroker(broker, connect_only=False):
        await subscriber.process_message(records)
    ((handled, context),) = consumer.handled
    assert handled == records
    assert not dict(context), "FastStream's message would be in it"
