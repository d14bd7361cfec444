"""What is left of a batch that a client refuses, byte by byte. Batches are aiokafka's own, then broken."""

import struct
from collections.abc import Callable
from typing import Any, Final

import pytest
from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError
from aiokafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder
from aiokafka.record.util import calc_crc32c

from worker.kafka.consuming.raw_batch import Fetched, RawBatch, read_first_batch
from worker.kafka.consuming.unreadable import UnreadableRecord, UnreadableSpan

PARTITION: Final = TopicPartition("order-placed", 3)
HEADER_BYTES: Final = 61
END: Final = 1_000
CODECS: Final = {"gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
Headers = list[tuple[str, bytes | None]]
SOUND: Final = [
    (b"key 0", b"value 0", [("a", b"1"), ("b", None)]),
    (None, b"value 1", []),
    (b"key 2", None, []),
]


def batch(
    *values: tuple[bytes | None, bytes | None, Headers],
    base: int = 100,
    codec: int = 0,
    producer: int = -1,
    attributes: int = 0,
    is_transactional: bool = False,
) -> bytearray:
    """A batch of these, or of three sound records, as a broker stores it."""
    builder = DefaultRecordBatchBuilder(2, codec, is_transactional, producer, 0, 0, 1 << 20)
    for index, (key, value, headers) in enumerate(values or SOUND):
        builder.append(index, 5_000 + index, key, value, headers)
    made = bytearray(builder.build())
    struct.pack_into(">q", made, 0, base)
    made[22] |= attributes
    return checked(made)


def checked(data: bytearray) -> bytearray:
    """The same with the right checksum."""
    struct.pack_into(">I", data, 17, calc_crc32c(bytes(data[21:])))
    return data


def sized(data: bytearray) -> bytearray:
    struct.pack_into(">i", data, 8, len(data) - 12)
    return checked(data)


def of_bodies(*bodies: bytes) -> bytearray:
    """A batch of three offsets with these bytes as its records."""
    return sized(bytearray(batch()[:HEADER_BYTES] + b"".join(bodies)))


def written(delta: int, value: bytes, *, headers: bytes = b"\x00", attributes: bytes = b"\x00") -> bytes:
    """A record; `headers` begins with their number."""
    body = attributes + number(0) + number(delta) + number(-1) + number(len(value)) + value + headers
    return number(len(body)) + body


def number(value: int) -> bytes:
    """In zigzag code."""
    value, code = (value << 1) ^ (value >> 63), bytearray()
    while value > 0x7F:
        code.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*code, value])


def header(name: bytes, value: bytes = b"1") -> bytes:
    return number(len(name)) + name + number(len(value)) + value


def read(
    *batches: bytes | bytearray, offset: int = 100, aborted: list[tuple[int, int]] | None = None
) -> RawBatch:
    found = read_first_batch(Fetched(PARTITION, b"".join(batches), END, END, aborted), offset)
    assert found is not None
    return found


def values(found: RawBatch) -> list[bytes | None]:
    return [record.value for record in found.records]


def offsets(found: RawBatch) -> list[int]:
    return [record.offset for record in found.records]


class TestSoundBatches:
    @pytest.mark.parametrize("codec", [0, *CODECS.values()])
    def test_records_are_those_that_aiokafka_reads(self, codec: int):
        many: list[Any] = [(b"key", b"v" * 200, [("name", b"1")])] * 20
        found = read(batch(*many, codec=codec))
        theirs = [
            (r.offset, r.timestamp, r.timestamp_type, r.key, r.value, list(r.headers))
            for r in DefaultRecordBatch(bytes(batch(*many, codec=codec)))
        ]
        ours = [
            (r.offset, r.timestamp, r.timestamp_type, r.key, r.value, list(r.headers)) for r in found.records
        ]
        assert ours == theirs
        assert (found.next_offset, found.span) == (120, None)
        assert {type(r) for r in found.records} == {ConsumerRecord}

    def test_nulls_stay_nulls_and_have_no_size(self):
        first, second, third = read(batch()).records
        assert (first.headers, second.key, third.value) == ((("a", b"1"), ("b", None)), None, None)
        assert [r.serialized_key_size for r in (first, second)] == [5, -1]
        assert third.serialized_value_size == -1

    def test_a_broker_that_stamps_records_gives_all_of_a_batch_the_same_time(self):
        found = read(batch(attributes=0x08))
        assert {(r.timestamp, r.timestamp_type) for r in found.records} == {(5_002, 1)}

    def test_it_begins_at_the_offset_asked_for(self):
        assert offsets(read(batch(), offset=101)) == [101, 102]

    def test_only_the_first_batch_that_reaches_the_offset_is_read(self):
        found = read(batch(base=100), batch(base=103), batch(base=106), offset=104)
        assert (offsets(found), found.next_offset) == ([104, 105], 106)

    def test_a_gap_before_the_batch_is_passed(self):
        assert offsets(read(batch(base=110), offset=105)) == [110, 111, 112]

    def test_nothing_is_made_of_nothing(self):
        assert read_first_batch(Fetched(PARTITION, b"", END, END), 100) is None


class TestTransactions:
    def test_a_marker_is_skipped(self):
        found = read(batch((b"\0\0\0\0", b"", []), attributes=0x20, is_transactional=True), aborted=[])
        assert (found.records, found.next_offset, found.span) == ((), 101, None)

    def test_what_was_aborted_is_left_out_for_readers_of_committed_records_only(self):
        made = batch(producer=7, is_transactional=True)
        assert read(made, aborted=[(7, 90)]).records == ()
        assert read(made, aborted=[(7, 90)]).next_offset == 103
        assert len(read(made, aborted=None).records) == 3

    @pytest.mark.parametrize("aborted", [[], [(8, 90)], [(7, 101)]])
    def test_another_producers_abort_and_a_later_one_leave_it_alone(self, aborted: list[tuple[int, int]]):
        assert len(read(batch(producer=7, is_transactional=True), aborted=aborted).records) == 3

    def test_an_abort_ends_with_its_marker(self):
        before = batch(base=100, producer=7, is_transactional=True)
        marker = batch((b"\0\0\0\0", b"", []), base=103, producer=7, attributes=0x20, is_transactional=True)
        behind = batch(base=104, producer=7, is_transactional=True)
        found = read(before, marker, behind, offset=104, aborted=[(7, 100)])
        assert offsets(found) == [104, 105, 106]

    def test_what_is_no_part_of_a_transaction_is_not_left_out(self):
        assert len(read(batch(producer=7), aborted=[(7, 90)]).records) == 3

    def test_broken_compression_of_an_aborted_batch_is_nobodys_loss(self):
        broken = of_bodies(b"no gzip")
        broken[22] |= 0x11
        struct.pack_into(">q", broken, 43, 7)
        found = read(checked(broken), aborted=[(7, 90)])
        assert (found.span, found.next_offset) == (None, 103)


class TestRecordsReadRaw:
    @pytest.mark.parametrize(
        ("headers", "names", "why"),
        [
            (number(1) + header(b"\xff\xfe"), ["\\xff\\xfe"], "the header name \\xff\\xfe is not UTF-8"),
            (
                number(2) + header(b"sound") + header(b"caf\xe9"),
                ["sound", "caf\\xe9"],
                "the header name caf\\xe9 is not UTF-8",
            ),
            (number(1) + number(-1) + number(1) + b"1", [""], "a header has no name"),
            (number(-2), [], "it claims -2 headers"),
            (number(3) + header(b"one"), ["one"], "a number does not end"),
            (number(1) + number(90) + b"x", [], "a header's name claims 90 bytes where 1 are left"),
            (number(1) + header(b"one") + b"more", ["one"], "4 bytes behind its headers"),
        ],
    )
    def test_a_record_with_odd_headers_keeps_key_value_and_offset(
        self, headers: bytes, names: list[str], why: str
    ):
        odd = written(1, b"its value", headers=headers)
        found = read(of_bodies(written(0, b"before"), odd, written(2, b"behind")))
        assert values(found) == [b"before", b"its value", b"behind"]
        assert [type(r) for r in found.records] == [ConsumerRecord, UnreadableRecord, ConsumerRecord]
        record = found.records[1]
        assert isinstance(record, UnreadableRecord)
        assert ([name for name, _ in record.headers], record.why, record.offset) == (names, why, 101)
        assert (found.next_offset, found.span) == (103, None)


class TestUnreadableSpans:
    @pytest.mark.parametrize(
        ("broken", "kept", "first", "why"),
        [
            (
                [written(0, b"a"), number(500) + b"x"],
                [b"a"],
                101,
                "a record claims 500 bytes where 1 are left",
            ),
            ([written(0, b"a"), number(-5), written(2, b"c")], [b"a"], 101, "a record claims -5 bytes where"),
            ([written(0, b"a"), b"\xff" * 12], [b"a"], 101, "a number does not end"),
            ([written(0, b"a"), number(2) + b"\0\0"], [b"a"], 101, "a number does not end"),
            (
                [written(0, b"a"), written(9, b"b"), written(2, b"c")],
                [b"a"],
                101,
                "a record claims to be number 9",
            ),
            ([written(0, b"a")], [b"a"], 101, "a number does not end"),
            ([], [], 100, "a number does not end"),
        ],
    )
    def test_broken_framing_takes_the_rest_of_its_batch(
        self, broken: list[bytes], kept: list[bytes], first: int, why: str
    ):
        found = read(of_bodies(*broken))
        assert values(found) == kept
        assert found.next_offset == first
        assert found.span is not None
        assert (found.span.first, found.span.end) == (first, 103)
        assert found.span.why.startswith(why)

    def test_bytes_behind_the_last_offset_of_a_batch_cost_nothing(self):
        found = read(of_bodies(*(written(n, b"v") for n in range(3)), b"more"))
        assert (offsets(found), found.next_offset, found.span) == ([100, 101, 102], 103, None)

    def test_more_records_than_the_batch_claims_are_not_skipped(self):
        made = of_bodies(*(written(n, b"v") for n in range(3)))
        struct.pack_into(">i", made, 57, 2)
        found = read(checked(made))
        assert offsets(found) == [100, 101]
        assert found.span == UnreadableSpan(
            PARTITION, 102, 103, "8 bytes behind the 2 records its batch claims"
        )

    @pytest.mark.parametrize("codec", [5, 6, 7])
    def test_an_unknown_codec_takes_the_whole_batch(self, codec: int):
        found = read(batch(attributes=codec))
        assert found.span == UnreadableSpan(PARTITION, 100, 103, f"its batch has the unknown codec {codec}")

    @pytest.mark.parametrize(("name", "codec"), CODECS.items())
    def test_broken_compression_takes_the_rest_of_its_batch(self, name: str, codec: int):
        found = read(batch(attributes=codec), offset=101)
        assert found.span is not None
        assert (found.span.first, found.span.end) == (101, 103)
        assert found.span.why.startswith(f"its batch is no {name}: ")

    @pytest.mark.parametrize("version", [0, 1, 3])
    def test_nothing_is_read_of_another_message_format(self, version: int):
        made = batch()
        made[16] = version
        assert read(made).span == UnreadableSpan(PARTITION, 100, 101, f"message format {version}")


def wrong(change: Callable[[bytearray], None], *, base: int = 100) -> bytearray:
    made = batch(base=base)
    change(made)
    return made


def flip_a_value(data: bytearray) -> None:
    data[-3] ^= 0xFF


def absurd_last_offset(data: bytearray) -> None:
    struct.pack_into(">i", data, 23, 2_000_000_000)


def negative_last_offset(data: bytearray) -> None:
    struct.pack_into(">i", data, 23, -5)


def absurd_length(data: bytearray) -> None:
    struct.pack_into(">i", data, 8, 1_000_000)


def negative_length(data: bytearray) -> None:
    struct.pack_into(">i", data, 8, -12)


def absurd_length_and_last_offset(data: bytearray) -> None:
    absurd_length(data)
    absurd_last_offset(data)


def beyond_the_end(data: bytearray) -> None:
    struct.pack_into(">q", data, 0, END)


class TestWhereAnUncertainBatchEnds:
    @pytest.mark.parametrize(
        ("change", "behind", "end", "why"),
        [
            (flip_a_value, [batch(base=103)], 103, "its batch has a wrong checksum"),
            (flip_a_value, [batch(base=110)], 110, "its batch has a wrong checksum"),
            (flip_a_value, [], 103, "its batch has a wrong checksum"),
            (flip_a_value, [batch(base=END + 1)], 103, "its batch has a wrong checksum"),
            (absurd_last_offset, [batch(base=103)], 103, "its batch has a wrong checksum"),
            (absurd_last_offset, [], 101, "its batch has a wrong checksum"),
            (negative_last_offset, [], 101, "its batch has a wrong checksum"),
            (absurd_length, [batch(base=103)], 103, "its batch claims 1000000 bytes"),
            (absurd_length_and_last_offset, [batch(base=103)], 101, "its batch claims 1000000 bytes"),
            (negative_length, [batch(base=103)], 103, "its batch claims -12 bytes"),
            (beyond_the_end, [batch(base=103)], 103, "its batch claims to go from 1000 to 1002"),
        ],
    )
    def test_before_the_next_batch_else_where_it_says_else_one_further(
        self, change: Callable[[bytearray], None], behind: list[bytearray], end: int, why: str
    ):
        found = read(wrong(change), *behind)
        assert (found.records, found.next_offset) == ((), 100)
        assert found.span == UnreadableSpan(PARTITION, 100, end, why)

    def test_nothing_of_a_batch_with_a_wrong_checksum_is_used(self):
        control = wrong(flip_a_value)
        control[22] |= 0x20
        assert read(control).span is not None

    def test_a_batch_that_is_cut_off_is_named(self):
        for size in (1, 16, 17, 60):
            found = read(batch()[:size])
            assert found.span is not None
            assert (found.span.first, found.span.end) == (100, 101)

    def test_a_position_within_it_goes_forward_all_the_same(self):
        found = read(wrong(absurd_last_offset), offset=102)
        assert found.span is not None
        assert (found.span.first, found.span.end) == (102, 103)

    def test_one_that_lies_before_the_offset_wherever_it_claims_to_be_is_passed(self):
        found = read(wrong(beyond_the_end), batch(base=103), batch(base=106), offset=104)
        assert (offsets(found), found.next_offset, found.span) == ([104, 105], 106, None)

    def test_batches_that_all_lie_before_the_offset_are_named(self):
        assert read(batch(base=10), offset=100).span == UnreadableSpan(
            PARTITION, 100, 101, "no batch holds it"
        )


def test_whatever_byte_is_broken_is_named_or_read_as_a_client_reads_it():
    """Each byte of two batches, with and without a right checksum: never an exception, always forward."""
    sound = bytes(batch() + batch(base=103))
    for at in range(len(sound)):
        for value in (0x00, 0x7F, 0x80, 0xFF):
            for mend in (False, True):
                made = bytearray(sound)
                made[at] = value
                if mend and 21 <= at < len(sound) // 2:
                    made[: len(sound) // 2] = checked(made[: len(sound) // 2])
                found = read(bytes(made))
                assert found.span or found.next_offset > 100
                assert not found.span or found.span.end > found.span.first >= 100
                if not found.span and not any(isinstance(r, UnreadableRecord) for r in found.records):
                    assert sorted(offsets(found)) == offsets(found)


def test_a_span_says_what_and_where_it_is():
    span = UnreadableSpan(PARTITION, 17, 20, "its batch has a wrong checksum")
    assert str(span) == (
        "order-placed-3 from offset 17 up to 19 cannot be unpacked (its batch has a wrong checksum)"
    )


def test_what_is_named_here_aiokafka_refuses_too():
    for made in (batch(attributes=5), of_bodies(written(0, b"v", headers=number(1) + header(b"\xff")))):
        with pytest.raises((KafkaError, UnicodeDecodeError)):
            list(DefaultRecordBatch(bytes(made)))
