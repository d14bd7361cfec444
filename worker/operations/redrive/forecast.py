"""What workers would decide for dead letters if they were sent now."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from aiokafka import ConsumerRecord

from worker.core.decode import Decoded, Invalid, decode
from worker.core.results import Fate
from worker.operations.dead_letters.letter import Letter
from worker.operations.redrive.claim import Original
from worker.operations.replay.rehearsal import Rehearsal, Rehearsed
from worker.operations.replay.rehearse import RecordReader

_MAX_SAMPLES: Final = 5
# No record has such an offset, so none counts as the record that was decided.
_FIRST_OFFSET: Final = 2**62


@dataclass(slots=True)
class Expected:
    """Dead letters with the same result: `confirmed`, `rejected`, `duplicate` or `dead_letter`."""

    fate: str
    why: str
    letters: int = 0
    samples: list[str] = field(default_factory=list)
    """places of the first ones"""


class Forecast:
    """Decides letters in turn as a worker would, and changes nothing."""

    def __init__(self, reader: RecordReader) -> None:
        self._reader, self._rehearsal = reader, Rehearsal({})
        self._expected: dict[tuple[str, str], Expected] = {}
        self._at = _FIRST_OFFSET

    async def add(self, letters: Sequence[tuple[Letter, Original]]) -> None:
        records = [self._record(letter, original) for letter, original in letters]
        said = await self._reader.decide(self._rehearsal, records)
        for (letter, original), one in zip(letters, said, strict=True):
            key = one.fate.name.lower(), self._why(original, one)
            expected = self._expected.setdefault(key, Expected(*key))
            expected.letters += 1
            if len(expected.samples) < _MAX_SAMPLES:
                expected.samples.append(str(letter.place))

    def expected(self) -> list[Expected]:
        """The most first."""
        return sorted(self._expected.values(), key=lambda one: (-one.letters, one.fate, one.why))

    def _record(self, letter: Letter, original: Original) -> ConsumerRecord:
        assert letter.source is not None
        self._at += 1
        return ConsumerRecord(
            topic=letter.source.topic,
            partition=letter.source.partition,
            offset=self._at,
            timestamp=-1,
            timestamp_type=0,
            key=original.key,
            value=original.value,
            checksum=None,
            serialized_key_size=len(original.key or b""),
            serialized_value_size=len(original.value or b""),
            headers=original.headers,
        )

    def _why(self, original: Original, one: Rehearsed) -> str:
        if one.fate is Fate.DUPLICATE:
            return "the order is decided already"
        codes = ", ".join(sorted(set(one.codes)))
        if one.fate is not Fate.DEAD_LETTER:
            return codes
        max_bytes = self._reader.settings.message_max_bytes
        read: Decoded | Invalid = decode(original.value, max_bytes, original.headers)
        return f"{codes} at {read.path}" if isinstance(read, Invalid) and read.path else codes
