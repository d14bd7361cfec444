"""Removes the group member that a killed worker of our name has left behind.

Kafka counts a killed worker as a member until the session timeout: it keeps its partitions, and a rebalance
waits for it. The worker that replaces it has the same name, and removes the old member before it joins.

Static membership would do this too. But aiokafka's heartbeats carry no instance id, so two live workers of
one name would evict each other for ever, without any error. Here the start of the second one costs the first
one a single rebalance: it joins again, and both work.
"""

import asyncio
import logging
import socket
from contextlib import suppress
from typing import Final

from aiokafka.admin import AIOKafkaAdminClient

from worker.error_texts import reason_of
from worker.errors import CommandError
from worker.kafka.client_internals import leave_group
from worker.kafka.client_names import name_of
from worker.kafka.clients import KAFKA_ERRORS, kafka_admin
from worker.kafka.group import members
from worker.observability.events import Event, about
from worker.settings import Settings

log = logging.getLogger(__name__)

# A server that is away is named within ten seconds, with what the checks take after this.
LONGEST_SECONDS: Final = 3.0


def worker_name(settings: Settings) -> str:
    """The instance id; by default host and port, which no two live workers share.

    `--workers N` and a restarted service keep them. Empty if the port is chosen freely.
    """
    port = f"{socket.gethostname()}:{settings.http_port}" if settings.http_port else ""
    return settings.instance_id or port


async def leave_for_predecessor(settings: Settings) -> None:
    """Remove every member of our name from the group. Call it before this worker joins. Never raises.

    If Kafka does not answer, the group waits for the session timeout, as it would without this.
    """
    name = worker_name(settings)
    if not name:
        return
    try:
        # Where Kafka cannot be reached, the checks before the start say it.
        with suppress(CommandError):
            async with asyncio.timeout(LONGEST_SECONDS), kafka_admin(settings) as admin:
                await _leave(admin, settings.group_id, name)
    except KAFKA_ERRORS as error:
        extra = about(Event.LOOK_FAILED, server="kafka", error=type(error).__name__)
        why = reason_of(error)
        log.info("did not look for a killed worker named %s in the group: %s", name, why, extra=extra)


async def _leave(admin: AIOKafkaAdminClient, group_id: str, name: str) -> None:
    for member in await members(admin, group_id):
        if name_of(member.client_id) == name:
            await leave_group(admin, group_id, member.member_id)
            extra = about(Event.MEMBER_REPLACED)
            log.info("removed %s from the group: this worker takes its place", member.member_id, extra=extra)
