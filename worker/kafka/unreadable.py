"""What Kafka has stored and a client cannot unpack. Pure."""

from dataclasses import dataclass

from aiokafka import ConsumerRecord, TopicPartition


@dataclass
class UnreadableRecord(ConsumerRecord):  # type: ignore[misc]
    """A record that clients refuse to unpack, and that was read raw: key, value and offset are true.

    Names of headers are decoded with `backslashreplace`; headers behind a broken one are missing.
    """

    why: str
    """what is wrong with it, as a clause"""


@dataclass(frozen=True, slots=True)
class UnreadableSpan:
    """The offsets `first` up to, not including, `end`, that nobody can unpack: not even how many records."""

    partition: TopicPartition
    first: int
    end: int
    why: str
    """what is wrong with them, as a clause"""

    def __str__(self) -> str:
        place = f"{self.partition.topic}-{self.partition.partition}"
        return f"{place} from offset {self.first} up to {self.end - 1} cannot be unpacked ({self.why})"
