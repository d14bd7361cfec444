"""What a reader counts of that which cannot be unpacked."""

from aiokafka import ConsumerRecord, TopicPartition

from tests.support.builders import record
from worker.kafka.consuming.unreadable import UnreadableRecord, Unreadables, UnreadableSpan, joined

PARTITION = TopicPartition("order-placed", 0)


def unreadable(offset: int, why: str = "the header name \\xff is not UTF-8") -> UnreadableRecord:
    sound = record(b"{}", offset=offset)
    return UnreadableRecord(**vars(sound), why=why)


def span(first: int, end: int, partition: TopicPartition = PARTITION) -> UnreadableSpan:
    return UnreadableSpan(partition, first, end, "its batch has a wrong checksum")


def answer(met: Unreadables) -> list[str]:
    return [str(count) for count in met.counts()]


def test_a_record_is_a_record_and_knows_why():
    assert isinstance(unreadable(3), ConsumerRecord)
    assert unreadable(3) != record(b"{}", offset=3)


def test_sound_records_are_none():
    met = Unreadables()
    met.add_records([record(b"{}")])
    assert met.counts() == []


def test_they_are_counted_by_partition_from_the_first_on():
    met = Unreadables()
    met.add_span(span(9, 12))
    met.add_records([record(b"{}"), unreadable(7), unreadable(8)])
    met.add_span(span(5, 6, TopicPartition("order-confirmed", 1)))
    assert answer(met) == [
        "1 record of order-confirmed-1 from offset 5 cannot be unpacked (its batch has a wrong checksum)",
        "3 records of order-placed-0 from offset 9 cannot be unpacked (its batch has a wrong checksum)",
        "2 records of order-placed-0 from offset 7 cannot be unpacked (the header name \\xff is not UTF-8)",
    ]
    assert [count.read_raw for count in met.counts()] == [False, False, True]


def test_a_place_that_is_read_twice_counts_once():
    met = Unreadables()
    for _ in range(2):
        met.add_span(span(9, 12))
        met.add_records([unreadable(7)])
    assert [count.records for count in met.counts()] == [3, 1]


def test_what_several_readers_met_is_reported_together():
    one, other = Unreadables(), Unreadables()
    one.add_span(span(1, 2))
    other.add_span(span(1, 2, TopicPartition("order-confirmed", 1)))
    assert [count.topic for count in joined(one, other)] == ["order-confirmed", "order-placed"]
