from aiokafka import TopicPartition
from hypothesis import given
from hypothesis import strategies as st

from tests.support.builders import record
from worker.kafka.records import Records, cut, estimate_fit

sizes = st.lists(st.lists(st.one_of(st.none(), st.integers(0, 50)), min_size=1, max_size=8), max_size=4)


def batch_of(sizes_by_partition):
    return {
        TopicPartition("order-placed", p): [
            record(None if size is None else b"x" * size, partition=p, offset=offset)
            for offset, size in enumerate(of_one)
        ]
        for p, of_one in enumerate(sizes_by_partition)
    }


@given(sizes, st.integers(1, 100))
def test_a_batch_is_cut_in_order_and_nothing_is_left_out(sizes_by_partition, max_bytes):
    whole = batch_of(sizes_by_partition)
    seen: Records = {p: [] for p in whole}
    rest = whole
    while rest:
        part, rest = cut(rest, max_bytes)
        records = [r for of_one in part.values() for r in of_one]
        assert records
        assert len(records) == 1 or sum(len(r.value or b"") for r in records) <= max_bytes
        for partition, of_one in part.items():
            seen[partition] += of_one
    assert seen == whole


def test_a_record_larger_than_the_limit_goes_alone():
    part, rest = cut(batch_of([[100, 1]]), 10)
    assert [len(r.value) for r in part[TopicPartition("order-placed", 0)]] == [100]
    assert [len(r.value) for r in rest[TopicPartition("order-placed", 0)]] == [1]


@given(
    st.lists(st.one_of(st.none(), st.integers(0, 50)), min_size=1), st.integers(1, 100), st.integers(1, 999)
)
def test_as_many_records_fit_as_have_the_bytes_on_average_but_one_at_least(sizes, max_records, max_bytes):
    (records,) = batch_of([sizes]).values()
    fit = estimate_fit(records, max_records, max_bytes)
    assert 1 <= fit <= max_records
    average = sum(size or 0 for size in sizes) / len(sizes)
    assert fit == 1 or fit * average <= max_bytes * (1 + 1e-9)
    assert fit == max_records or (fit + 1) * average > max_bytes * (1 - 1e-9)


def test_of_records_without_values_as_many_fit_as_may_be():
    assert estimate_fit([], 7, 1) == 7
    assert estimate_fit([record(None)], 7, 1) == 7
