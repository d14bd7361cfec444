"""Faults of the broker's files: batches that a disk has damaged, and old copies that are restored."""

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from tests.faults.arena import Arena
from tests.support.log_files import (
    break_batch,
    broken_compression,
    folder_of,
    replace_folder,
    unknown_codec,
    wrong_checksum,
)
from worker.sandbox.servers.kafka import LocalKafka

_BREAKINGS: Final = (wrong_checksum, unknown_codec, broken_compression)


def broken_batches(arena: Arena) -> None:
    """Original batches of some partitions are broken on disk; their orders are given up, and no other is."""
    for _ in range(2):
        arena.some_progress()
        arena.kill_all()
        broken = _break_batches(arena)
        topic = arena.scene.topics.order_placed
        arena.feed(1 / 8)  # also behind them
        for partition, offsets in broken.items():
            name, place = f"{topic}-{partition}", f"{topic}:{partition}:{offsets.start}"
            arena.until(lambda: name in arena.reasons())  # noqa: B023
            arena.command("skip", place, "--by", "campaign", "--note", "a bad disk", "--execute").done()
            arena.injected += 1
        arena.any_worker().kill()  # the next owner of the partition fails there as well
        arena.until(lambda: not any(f"{topic}-{p}" in arena.reasons() for p in broken))  # noqa: B023


def restored_volume(arena: Arena) -> None:
    """An older copy of a partition is put back, its later orders are gone, and others take their offsets."""
    for number in range(2):
        partition = arena.chance.randrange(arena.partitions)
        with TemporaryDirectory(prefix="older-volume-") as folder:
            copy = Path(folder) / "copy"
            end = _copy(arena, partition, copy)
            # Some of these are decided and gone afterwards.
            arena.place_extra(partition, arena.chance.randint(5, 20))
            arena.some_progress()
            arena.drain()
            if number:
                arena.kill_all()
            _put_back(arena, partition, copy)
        arena.placed.cut(partition, end)
        arena.injected += 1
        # Fewer than were there, and then more than that.
        arena.place_extra(partition, 3)
        arena.some_progress()
        arena.place_extra(partition, 30)
        arena.some_progress()


def _break_batches(arena: Arena) -> dict[int, range]:
    """The offsets that are broken, of some partitions, while the broker was stopped."""
    kafka = _kafka(arena)
    chosen = arena.chance.sample(range(arena.partitions), len(_BREAKINGS))
    begins = {}
    for partition in chosen:
        begins[partition] = arena.placed.ends[partition]
        arena.place_extra(partition, 3)
    kafka.stop()
    topic = arena.scene.topics.order_placed
    broken = {
        partition: break_batch(folder_of(kafka, topic, partition), begins[partition], breaking)
        for partition, breaking in zip(chosen, _BREAKINGS, strict=True)
    }
    kafka.start()
    for partition, offsets in broken.items():
        arena.placed.doom(partition, offsets)
    return broken


def _copy(arena: Arena, partition: int, copy: Path) -> int:
    """Copy the partition's files while all of it is decided; where its log ends."""
    kafka = _kafka(arena)
    arena.some_progress()
    arena.drain()
    kafka.stop()
    shutil.copytree(folder_of(kafka, arena.scene.topics.order_placed, partition), copy)
    kafka.start()
    return arena.placed.ends[partition]


def _put_back(arena: Arena, partition: int, copy: Path) -> None:
    kafka = _kafka(arena)
    kafka.stop()
    replace_folder(folder_of(kafka, arena.scene.topics.order_placed, partition), copy)
    kafka.start()


def _kafka(arena: Arena) -> LocalKafka:
    assert isinstance(arena.site.kafka, LocalKafka)
    return arena.site.kafka
