"""Waits until every broker knows new topics: Kafka acknowledges their creation before that."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaConnectionError, NodeNotReadyError, RequestTimedOutError
from aiokafka.protocol.metadata import MetadataRequest

from worker.errors import CommandError
from worker.kafka.client_internals import ask_broker, brokers_now

# A broker that has died stays on the list until its session ends: after 9 s by default.
_LIMIT_SECONDS: Final = 30.0
_ASK_AGAIN_SECONDS: Final = 0.05
_NO_ANSWER: Final = "does not answer"


async def until_all_brokers_know(
    admin: AIOKafkaAdminClient, partitions: Mapping[str, int], limit_seconds: float = _LIMIT_SECONDS
) -> None:
    """Return when each listed broker names a leader of every partition of these topics.

    `partitions`: how many each topic has at least. Raises a CommandError that names the first broker and
    topic for which that takes too long, and KafkaError if no broker answers.
    """
    deadline = time.monotonic() + limit_seconds
    while lacking := await _lacking(admin, partitions):
        if time.monotonic() > deadline:
            raise CommandError(
                f"the topics are created, but {lacking}, also after {limit_seconds:.0f} s:"
                " look at that broker, then run it again"
            )
        await asyncio.sleep(_ASK_AGAIN_SECONDS)


async def _lacking(admin: AIOKafkaAdminClient, partitions: Mapping[str, int]) -> str | None:
    # Read each time: a broker that has died leaves the list, and a new one joins it.
    nodes = await brokers_now(admin)
    answers = await asyncio.gather(*(_topics_known_to(admin, node, list(partitions)) for node in nodes))
    return first_lacking(dict(zip(nodes, answers, strict=True)), partitions)


async def _topics_known_to(
    admin: AIOKafkaAdminClient, node: int, names: list[str]
) -> list[dict[str, Any]] | None:
    # Asking must not create them: aiokafka's own question does, where brokers allow that.
    question = MetadataRequest(names, allow_auto_topic_creation=False)
    try:
        answer = await ask_broker(admin, node, question)
    except (KafkaConnectionError, NodeNotReadyError, RequestTimedOutError):
        return None
    topics: list[dict[str, Any]] = answer.to_object()["topics"]
    return topics


def first_lacking(
    answers: Mapping[int, Sequence[Mapping[str, Any]] | None], partitions: Mapping[str, int]
) -> str | None:
    """What a broker does not know yet, as text; None: all of them know everything.

    `answers`: each broker's metadata of the topics; None: it does not answer.
    """
    for node, answer in answers.items():
        if answer is None:
            return f"broker {node} {_NO_ANSWER}"
        leaders = {topic["topic"]: _leaders(topic) for topic in answer}
        for name, count in partitions.items():
            known = leaders.get(name, {})
            if len(known) < count:
                return f"broker {node} knows {len(known)} of {count} partitions of {name}"
            if unled := [number for number, leader in known.items() if leader < 0]:
                return f"broker {node} knows no leader of {name}-{min(unled)}"
    return None


def _leaders(topic: Mapping[str, Any]) -> dict[int, int]:
    return {partition["partition"]: partition["leader"] for partition in topic["partitions"]}
