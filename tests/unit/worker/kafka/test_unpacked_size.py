"""What small batches would unpack to, by the bytes that real codecs make."""

import gzip
import os

import cramjam
import pytest
from aiokafka.codec import lz4_encode, snappy_encode, zstd_encode

from tests.unit.worker.kafka.test_raw_batch import CODECS, END, PARTITION, batch, sized
from worker.kafka.consuming.raw_batch import Fetched, read_first_batch
from worker.kafka.consuming.unpacked_size import MAX_UNPACKED_BYTES, first_too_large, is_too_large

PACKERS = {"gzip": lambda data: gzip.compress(data, 1), "lz4": lz4_encode, "zstd": zstd_encode}
TOO_LARGE = bytes(MAX_UNPACKED_BYTES + 1)


@pytest.mark.parametrize("name", PACKERS)
def test_what_unpacks_to_more_than_the_limit_is_too_large(name: str):
    packed = PACKERS[name](TOO_LARGE)
    assert len(packed) < MAX_UNPACKED_BYTES / 100
    assert is_too_large(CODECS[name], packed)
    assert not is_too_large(CODECS[name], PACKERS[name](TOO_LARGE[: MAX_UNPACKED_BYTES // 2]))


@pytest.mark.parametrize("name", [*PACKERS, "snappy"])
@pytest.mark.parametrize("size_bytes", [0, 1, 300, 2_000_000])
def test_what_hardly_packs_is_not_too_large(name: str, size_bytes: int):
    packed = {**PACKERS, "snappy": snappy_encode}[name](os.urandom(size_bytes))
    assert not is_too_large(CODECS[name], packed)


def test_one_archive_after_the_other_counts_as_all_of_them():
    assert is_too_large(CODECS["gzip"], 3 * gzip.compress(bytes(MAX_UNPACKED_BYTES // 2), 1))
    assert is_too_large(CODECS["zstd"], 3 * zstd_encode(bytes(MAX_UNPACKED_BYTES // 2)))


@pytest.mark.parametrize("name", PACKERS)
@pytest.mark.parametrize("length", [0, 1, 5, 8, 200])
def test_a_body_that_is_cut_off_or_garbage_raises_nothing(name: str, length: int):
    assert not is_too_large(CODECS[name], PACKERS[name](bytes(1_000_000))[:length])
    assert not is_too_large(CODECS[name], os.urandom(length))


@pytest.mark.parametrize("name", PACKERS)
def test_a_body_that_breaks_after_the_limit_is_too_large(name: str):
    packed = PACKERS[name](2 * TOO_LARGE)
    for broken in (packed[:-20], packed + b"x", packed + b"xxxxxxxx"):
        assert is_too_large(CODECS[name], broken)


@pytest.mark.parametrize("name", ["lz4", "zstd"])
def test_what_a_codec_skips_hides_nothing(name: str):
    skipped = bytes.fromhex("572a4d18") + (3).to_bytes(4, "little") + b"abc"
    packed = PACKERS[name](TOO_LARGE)
    assert is_too_large(CODECS[name], skipped + packed)
    assert is_too_large(CODECS[name], PACKERS[name](b"small") + skipped + packed)
    assert not is_too_large(CODECS[name], skipped)


def test_the_first_batch_that_is_too_large_is_found_behind_others_and_named():
    small = bytes(batch(base=100))
    head = batch(base=103, codec=CODECS["zstd"])[:61]
    large = bytes(sized(head + bytes(cramjam.zstd.compress(TOO_LARGE))))
    assert first_too_large(small + large) == len(small)
    assert first_too_large(small + small[:70]) is None
    found = read_first_batch(Fetched(PARTITION, large, END, END), 103)
    assert found is not None
    assert found.span is not None
    assert (found.span.first, found.span.end) == (103, 106)
    assert "unpacks to more than 64 MiB" in str(found.span)
