"""The guarantees, checked from outside: in the ledger, the shop, and as a read_committed subscriber."""

import subprocess
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from uuid import UUID

from tests.support.deadline import eventually
from tests.support.group_offsets import (
    asking_for_lag,
    committed_lag,
    forget_offsets,
    group_members,
    remember_wrongly,
)
from tests.support.publishing import publish
from tests.support.shop import Shop
from tests.support.subscriber import Message, read_topic
from tests.support.topic_changes import recreate_topic
from tests.support.topic_names import TopicNames
from worker.sandbox.servers.kafka import kafka_tool_command


@dataclass(frozen=True)
class Scene:
    """One test's shop, topics and consumer group."""

    kafka: str
    shop: Shop
    topics: TopicNames
    group_id: str

    def place(
        self,
        values: Iterable[bytes | None],
        *,
        partition: int | None = None,
        headers: Sequence[tuple[str, bytes | None]] | None = None,
        compression: str = "none",
    ) -> None:
        """Publish to the input topic, in order where a partition is named."""
        publish(
            self.kafka,
            self.topics.order_placed,
            list(values),
            partition=partition,
            headers=headers,
            compression=compression,
        )

    def wait_until_drained(self, seconds: float = 60.0) -> None:
        """Every input record's offset is committed."""
        with asking_for_lag(self.kafka, self.group_id, self.topics.order_placed) as lag:
            eventually(lambda: lag() == 0, seconds, lambda: f"lag {lag()}")

    def confirmed(self) -> list[Message]:
        return read_topic(self.kafka, self.topics.order_confirmed)

    def rejected(self) -> list[Message]:
        return read_topic(self.kafka, self.topics.order_rejected)

    def dead_letters(self) -> list[Message]:
        return read_topic(self.kafka, self.topics.dead_letter)

    def outcomes(self) -> list[Message]:
        return self.confirmed() + self.rejected()

    def assert_promises(self, order_ids: Iterable[UUID], dead_letters: int = 0) -> None:
        """Each order decided once and published once, in the ledger's bytes; stock conserved."""
        self.shop.assert_conserved()
        ledger = {
            str(row["order_id"]): (row["outcome"], row["event"].encode())
            for row in self.shop.sql("SELECT order_id, outcome, event::text FROM order_outcomes")
        }
        assert set(ledger) == {str(i) for i in order_ids}, (
            "the ledger holds exactly the orders that were placed"
        )
        decided = Counter(outcome for outcome, _ in ledger.values())
        published = {
            "confirmed": _once_it_shows(self.confirmed, decided["confirmed"]),
            "rejected": _once_it_shows(self.rejected, decided["rejected"]),
        }
        times = Counter(str(m.header("ce_subject")) for messages in published.values() for m in messages)
        assert times == Counter(list(ledger)), (
            f"published more than once: {list(times - Counter(list(ledger)))[:3]},"
            f" not published: {list(Counter(list(ledger)) - times)[:3]}"
        )
        for outcome, messages in published.items():
            for message in messages:
                assert ledger[message.event["order_id"]] == (outcome, message.value)
        letters = _once_it_shows(self.dead_letters, dead_letters)
        sources = Counter((m.header("source.partition"), m.header("source.offset")) for m in letters)
        assert len(letters) == dead_letters
        assert set(sources.values()) <= {1}, "a dead letter is written once"
        assert self.lag() == 0

    def forget_offsets(self) -> None:
        """Let Kafka forget how far the group has come, once nobody is in it."""
        self._wait_until_nobody_is_in_the_group()
        forget_offsets(self.kafka, self.group_id)

    def remember_wrongly(self) -> None:
        """Let Kafka return an old offset wherever there is one, once nobody is in the group."""
        self._wait_until_nobody_is_in_the_group()
        further = self.shop.sql("SELECT partition FROM positions WHERE announced_to > 1")
        offsets = {row["partition"]: 1 for row in further}
        if offsets:
            remember_wrongly(self.kafka, self.group_id, self.topics.order_placed, offsets)

    def pretend_the_last_commits_were_acknowledged(self) -> None:
        """Change what PostgreSQL has recorded of the latest batches, whether or not Kafka has them."""
        self.shop.sql(
            "UPDATE positions SET announced_to = begun_to, acknowledged_from = announced_to,"
            " acknowledged_topic = witness_topic, acknowledged_timestamp_ms = witness_timestamp_ms,"
            " acknowledged_digest = witness_digest, acknowledged_partition = witness_partition,"
            " acknowledged_from_offset = witness_from_offset, witness_topic = NULL"
        )

    def recreate_input_topic(self) -> None:
        """Delete the topic, which nobody may read, and create one of the same name."""
        self._wait_until_nobody_is_in_the_group()
        recreate_topic(self.kafka, self.topics.order_placed)

    def _wait_until_nobody_is_in_the_group(self) -> None:
        eventually(lambda: group_members(self.kafka, self.group_id) == 0, 30)

    def rewind(self, *to: str) -> None:
        """Move the group's offsets with Kafka's own tool, as an operator would, once nobody is in it."""
        self._wait_until_nobody_is_in_the_group()
        subprocess.run(
            kafka_tool_command(
                "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand",
                *("--bootstrap-server", self.kafka, "--group", self.group_id),
                *("--topic", self.topics.order_placed, "--reset-offsets", *to, "--execute"),
            ),
            check=True,
            capture_output=True,
            timeout=60,
        )

    def lag(self) -> int | None:
        return committed_lag(self.kafka, self.group_id, self.topics.order_placed)


def _once_it_shows(read: Callable[[], list[Message]], count: int) -> list[Message]:
    """Reads again for a moment if too few are there: Kafka acknowledges a commit before it is visible."""
    seen: list[Message] = []

    def shows() -> bool:
        seen[:] = read()
        return len(seen) >= count

    with suppress(AssertionError):
        eventually(shows, 5)
    return seen
