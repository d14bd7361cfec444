"""`dead-letters export`: dead letters as JSON lines, for other tools."""

from pathlib import Path
from typing import Any

from aiokafka import ConsumerRecord

from worker.core.triage import Source
from worker.errors import CommandError
from worker.kafka.consuming.unreadable import UnreadableCount
from worker.kafka.offsets import topic_reader
from worker.operations.dead_letters.letter import Choice, Letter
from worker.operations.dead_letters.read import NOTHING, chosen, letter_spans, plain_record
from worker.operations.screen import json_text, versioned
from worker.operations.whole_file import write_line, written
from worker.settings import Settings


async def export(
    settings: Settings, choice: Choice, out: Path, *, force: bool
) -> tuple[int, list[UnreadableCount]]:
    """Write the chosen letters as JSON lines ("-": standard output), all or none.

    Returns how many there are, and what in their topic cannot be unpacked.
    """
    count = 0
    with written(out, force) as file:
        async with topic_reader(settings, settings.dead_letter_topic) as consumer:
            spans = await letter_spans(consumer, settings, choice)
            async for found in chosen(consumer, spans, choice, "exporting"):
                for letter, record in found:
                    write_line(file, json_text(versioned(_line(letter, record))).encode() + b"\n", out)
                    count += 1
            unreadable = consumer.met.counts()
        if not count:
            raise CommandError(NOTHING)
    return count, unreadable


def _line(letter: Letter, record: ConsumerRecord) -> dict[str, Any]:
    source = letter.source
    return {
        "place": str(letter.place),
        "source": source._asdict() if isinstance(source, Source) else None,
        "error": {"code": letter.code, "path": letter.path, "message": letter.message},
        "failed_at": letter.failed_at,
        "cut_from_bytes": letter.cut_from_bytes,
        **plain_record(record),
    }
