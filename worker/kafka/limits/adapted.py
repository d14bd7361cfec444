"""Adapts publications to the limits of their topic. Pure."""

from collections.abc import Iterable
from typing import Final

from worker.core.dead_letter import Form, fit, is_letter, is_minimal, source_of, with_made_up_key
from worker.core.results import Publication
from worker.kafka.limits.refusals import Attempt
from worker.kafka.limits.topic_limits import TopicLimits

# More than Kafka's default of 1 MiB and headers: as a rule the dead-letter topic's own limit is lower.
MAX_REQUEST_BYTES: Final = 4 * 1024 * 1024


def adapted(publications: list[Publication], limits: TopicLimits, now_ms: int) -> list[Publication]:
    """The publications of one topic, in order: dead letters cut and keyed, timestamps within its bounds.

    If the topic accepts their time, outcomes cost nothing here: those of a batch have the same time, and
    nothing else of an outcome may be changed.
    """
    if is_letter(publications[0].headers):
        publications = [_letter(one, limits) for one in publications]
    if limits.takes_time(publications[0].timestamp_ms, now_ms):
        return publications
    return [one._replace(timestamp_ms=now_ms) for one in publications]


def attempt(limits: TopicLimits, records: int, sole: Publication | None, *, is_letter: bool) -> Attempt:
    """Describes a refused batch, for `refusals.remedy`. `sole`: its record, if it has only one."""
    return Attempt(
        is_letter=is_letter,
        records=records,
        own_time=limits.own_time or limits.stamped_by_broker,
        keyed=limits.needs_key or (sole is not None and sole.key is not None),
        is_minimal=sole is not None and is_letter and is_minimal(form_of(sole)),
    )


def form_of(publication: Publication) -> Form:
    return Form(publication.key, publication.value, publication.headers)


def identity(key: bytes | None, headers: Iterable[tuple[str, bytes | None]]) -> tuple[object, ...]:
    """What identifies a publication, however it was adapted: for a dead letter, its source and the time of
    the failure; for an outcome, its key and headers."""
    headers = [(name, value) for name, value in headers]
    if not is_letter(headers):
        return key, headers
    kept = ("source.topic", "source.partition", "source.offset", "failed_at")
    return tuple(header for header in headers if header[0] in kept)


def place_of(publication: Publication) -> str | None:
    """The source of a dead letter: TOPIC-PARTITION@OFFSET."""
    if not is_letter(publication.headers):
        return None
    topic, partition, offset = source_of(publication.headers)
    return f"{topic}-{partition}@{offset}"


def order_of(publication: Publication) -> str | None:
    """The order id of an outcome."""
    return None if is_letter(publication.headers) else (publication.key or b"").decode()


def _letter(publication: Publication, limits: TopicLimits) -> Publication:
    form = form_of(publication)
    if limits.needs_key:
        form = with_made_up_key(form)
    form = fit(form, min(limits.max_batch_bytes, MAX_REQUEST_BYTES))
    return publication._replace(key=form.key, value=form.value, headers=form.headers)
