"""Sets aside outcomes that their topic refuses, so that the orders after them are processed.

From then on only `worker.pipeline.withheld` publishes them, once their topic accepts them.
"""

import json
import logging
from collections.abc import Collection, Sequence
from typing import Final
from uuid import UUID

from db.worker import leases, withheld
from db.worker.withheld import Refused
from worker.core.dead_letter import is_letter
from worker.core.results import Publication, RecordResult
from worker.kafka.consumer_group import ConsumerGroup
from worker.kafka.limits.naming import now_set_aside
from worker.kafka.producing.lease import Lease
from worker.observability.events import Event, about
from worker.pipeline.publisher import OutcomesRefusedError, Outgoing, Publisher, Refusal

log = logging.getLogger(__name__)

# If a topic refuses more outcomes of one partition than this, single orders are not the cause: then the
# partition waits.
MOST_OF_A_PARTITION: Final = 100


async def publish_or_set_aside(publisher: Publisher, group: ConsumerGroup, batch: Sequence[Outgoing]) -> None:
    """As `publish`; single outcomes that Kafka refuses for good are withheld, for the next attempt.

    Raises AdaptedError then, and OutcomesRefusedError if there are too many of them.
    """
    try:
        await publisher.publish(batch)
    except OutcomesRefusedError as error:
        for one in batch:
            refusals = [refusal for refusal in error.refusals if refusal.source == one.lease.partition]
            if refusals and not await set_aside(group, one.lease, refusals):
                raise refusals[0].error from error
        raise now_set_aside(error.refusals[0].error) from error


def without_withheld(results: list[RecordResult], order_ids: Collection[str]) -> list[RecordResult]:
    """The results, without the publications of orders whose outcome is withheld."""
    if not order_ids:
        return results
    return [
        one._replace(publication=None) if one.publication and _is_of(one.publication, order_ids) else one
        for one in results
    ]


def _is_of(publication: Publication, order_ids: Collection[str]) -> bool:
    return (publication.key or b"").decode(errors="replace") in order_ids and not is_letter(
        publication.headers
    )


async def set_aside(group: ConsumerGroup, lease: Lease, refusals: Sequence[Refusal]) -> bool:
    """Withhold these outcomes of a partition, if we still own it and they are not too many.

    From then on no owner publishes them with their batch.
    """
    partition = lease.partition
    async with group.sessions.begin() as session:
        if not await leases.hold_epoch(session, group.id, partition.topic, partition.partition, lease.epoch):
            return False
        number = (await withheld.count_withheld(session, partition.topic)).get(partition.partition, 0)
        if number + len(refusals) > MOST_OF_A_PARTITION:
            return False
        await withheld.add_withheld(
            session,
            [
                Refused(
                    UUID((publication.key or b"").decode()),
                    publication.topic,
                    _packed(publication.headers),
                    size,
                    error.reason,
                    error.what_to_do,
                )
                for _, publication, size, error in refusals
            ],
        )
    for _, publication, _, error in refusals:
        order_id = (publication.key or b"").decode()
        extra = about(Event.OUTCOME_WITHHELD, partition, order_id=order_id)
        log.error("%s; it is set aside, and the orders after it are processed", error, extra=extra)
    return True


def _packed(headers: Sequence[tuple[str, bytes | None]]) -> str:
    # Latin-1 has a character for each byte.
    return json.dumps([[name, None if value is None else value.decode("latin-1")] for name, value in headers])


def unpacked_headers(headers: str) -> list[tuple[str, bytes | None]]:
    return [(name, None if value is None else value.encode("latin-1")) for name, value in json.loads(headers)]
