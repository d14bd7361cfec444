"""How much a fetcher keeps of what it has fetched and no poll has returned yet. Pure."""

from collections.abc import Iterable
from typing import Any, Final

from aiokafka.consumer.fetcher import FetchResult

# aiokafka fetches the other partitions while some are not polled yet, an answer at a time: 500 partitions
# with 256 KiB each came to 125 MiB while PostgreSQL was locked. Four answers are enough for the largest
# batch, and leave room for the other partitions while one that was compressed well lasts for many polls.
MAX_BUFFERED_BYTES: Final = 12 * 1024 * 1024
# The largest batch of a producer, by the brokers' default: if less room is left, an answer leaves it out.
_BATCH_BYTES: Final = 1024 * 1024


def is_full(entries: Iterable[Any]) -> bool:
    """Whether nothing more is to be fetched before a poll. `entries`: what a fetcher has, by partition."""
    return sum(map(_size, entries)) >= MAX_BUFFERED_BYTES


def _size(entry: Any) -> int:
    """The compressed bytes of an answer until all of it was polled; the decompressed size is not known."""
    fetched = entry._partition_records if type(entry) is FetchResult else None
    return int(fetched._records.size_in_bytes()) if fetched else 0


def had_room(max_bytes: int, topics: Iterable[Any]) -> bool:
    """Whether an answer of at most `max_bytes` had room for a batch of another partition."""
    brought = sum(len(one[-1] or b"") for _, partitions in topics for one in partitions)
    return brought + _BATCH_BYTES <= max_bytes
