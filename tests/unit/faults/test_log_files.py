"""Batches are broken as a disk would, and nothing else in the file is."""

from pathlib import Path
from typing import Any

import pytest
from aiokafka.errors import UnsupportedCodecError
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords

from tests.support.log_files import Breaking, break_batch, broken_compression, unknown_codec, wrong_checksum


def batch(first: int, values: list[bytes]) -> bytes:
    builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, 100_000)
    for number, value in enumerate(values):
        builder.append(number, 1_000, None, value, [])
    content = bytes(builder.build())
    return first.to_bytes(8, "big") + content[8:]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    content = batch(0, [b"a", b"b"]) + batch(2, [b"c", b"d", b"e"]) + batch(5, [b"f"])
    (tmp_path / "00000000000000000000.log").write_bytes(content)
    return tmp_path


def test_a_wrong_checksum_is_seen_and_harms_no_neighbour(folder: Path):
    assert break_batch(folder, 3, wrong_checksum) == range(2, 5)
    before, broken, behind = batches_of(folder)
    assert (before.validate_crc(), broken.validate_crc(), behind.validate_crc()) == (True, False, True)


@pytest.mark.parametrize(
    ("breaking", "error"),
    [
        (unknown_codec, UnsupportedCodecError),
        (broken_compression, OSError),
    ],
)
def test_what_is_not_compressed_as_it_says_cannot_be_unpacked(
    folder: Path, breaking: Breaking, error: type[Exception]
):
    assert break_batch(folder, 2, breaking) == range(2, 5)
    before, broken, behind = batches_of(folder)
    assert broken.validate_crc()
    with pytest.raises(error):
        list(broken)
    assert [record.value for record in (*before, *behind)] == [b"a", b"b", b"f"]


def batches_of(folder: Path) -> list[Any]:
    batches = MemoryRecords((folder / "00000000000000000000.log").read_bytes())
    return [batches.next_batch() for _ in range(3)]
