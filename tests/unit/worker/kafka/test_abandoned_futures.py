"""What aiokafka leaves behind of a producer that has failed."""

import asyncio
import gc

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import ProducerFenced

from worker.kafka.producing.transaction import Transaction


async def fail_before_it_is_sent() -> None:
    """As aiokafka does where Kafka adds no partition to the transaction, because another one has begun."""
    producer = AIOKafkaProducer(transactional_id="shop.one")
    batch = producer.create_batch()
    batch.append(key=None, value=b"1", timestamp=1_000)
    producer._txn_manager.set_pid_and_epoch(1, 0)
    await producer.begin_transaction()
    opened = Transaction(producer)
    opened.note(await producer._message_accumulator.add_batch(batch, TopicPartition("confirmed", 0), 1))
    producer._message_accumulator.fail_all(ProducerFenced())
    producer._txn_manager.fatal_error(ProducerFenced())
    opened.ignore_failures()
    await asyncio.sleep(0)
    await producer.stop()


async def test_a_fenced_producer_leaves_no_error_to_the_event_loop():
    """It would log one, with nothing to do about it: "Future exception was never retrieved"."""
    left: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: left.append(context))
    await fail_before_it_is_sent()
    gc.collect()
    assert left == []
