"""The rules of the worker, each with the small mistake that removes it and the runs that notice.

A rule is a promise here: what the worker guarantees by it, in one sentence. `tests.faults.mutate` makes the
mistakes one at a time and shows that the campaign goes red, so that no rule stands on faith.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final


@dataclass(frozen=True)
class Edit:
    """Replaces `old`, which the file holds exactly once."""

    path: str
    old: str
    new: str


@dataclass(frozen=True)
class Trial:
    """One run of the campaign."""

    fault: str
    seed: int = 1
    orders: int = 1_500

    def __str__(self) -> str:
        return f"{self.fault}, seed {self.seed}, {self.orders:,} orders"


@dataclass(frozen=True)
class Test:
    """Tests of the suite that notice what no fault of the campaign reaches."""

    path: str
    matching: str

    def __str__(self) -> str:
        return f"{self.path} -k {self.matching}"


@dataclass(frozen=True)
class Mutation:
    """A rule, a mistake of a maintainer that removes it, and what notices, likeliest first."""

    name: str
    rule: str
    mistake: str
    edits: tuple[Edit, ...]
    shown_by: tuple[Trial | Test, ...]


class NotTheSourceError(Exception):
    """An edit does not fit the sources: its text is gone, or there more than once."""


def edited(name: str, edits: Iterable[Edit], root: Path) -> Mapping[str, str]:
    """Each edited file's new text, by its path below `root`; nothing is written. `name` is for the error."""
    texts: dict[str, str] = {}
    for edit in edits:
        text = texts.get(edit.path) or (root / edit.path).read_text(encoding="utf-8")
        if (found := text.count(edit.old)) != 1:
            raise NotTheSourceError(f"{name}: {edit.path} holds {found} times: {edit.old!r}")
        texts[edit.path] = text.replace(edit.old, edit.new)
    return texts


# Mistakes that stop all work need not be waited for as long as a full campaign on a busy machine may take.
# The control runs wait no longer either.
LESS_PATIENT: Final = Edit(
    "tests/faults/campaign.py", "DRAIN_SECONDS: Final = 120.0", "DRAIN_SECONDS: Final = 45.0"
)


_BATCH: Final = "worker/pipeline/batch.py"
_DECODING: Final = "worker/pipeline/decoding.py"
_SAME_ORDER: Final = "worker/core/same_order.py"
_STOCK_TAKING: Final = "worker/pipeline/stock_taking.py"
_RESULTS: Final = "worker/core/results.py"
_CONSUMER: Final = "worker/pipeline/consumer.py"
_PUBLISHER: Final = "worker/pipeline/publisher.py"
_TRANSACTION: Final = "worker/kafka/producing/transaction.py"
_TAKEOVER: Final = "worker/pipeline/takeover.py"
_RESUME: Final = "worker/pipeline/resume.py"
_WATCH: Final = "worker/pipeline/watch.py"
_HEALTH: Final = "worker/observability/health.py"
_RECORDS: Final = "worker/kafka/consuming/record_consumer.py"
_PLACES: Final = "worker/kafka/consuming/places.py"
_UNPACKING: Final = "worker/kafka/consuming/unpacking.py"
_POSITIONS: Final = "db/worker/positions.py"
_TRIAGE: Final = "worker/core/triage.py"
_PUBLISHED: Final = "worker/kafka/published.py"
_LEASE: Final = "worker/kafka/producing/lease.py"
_LEASE_PRODUCERS: Final = "worker/kafka/producing/lease_producers.py"
_LEASES: Final = "db/worker/leases.py"
_PARTITION: Final = "worker/pipeline/partition.py"
_FLOW: Final = "worker/pipeline/flow.py"
_OWNER: Final = "worker/pipeline/owner.py"
_RETRIES: Final = "worker/pipeline/retries.py"
_IDLE: Final = "worker/pipeline/idle.py"
_MAINTENANCE: Final = "worker/pipeline/maintenance.py"
_BROKER: Final = "worker/broker.py"
_SET_ASIDE: Final = "worker/pipeline/set_aside.py"
_RETRY: Final = "worker/failures.py"
_WITHHELD: Final = "worker/pipeline/withheld.py"
_LATE_PUBLICATION: Final = "worker/pipeline/late_publication.py"
_ADAPTED: Final = "worker/kafka/limits/adapted.py"
_DECODE: Final = "worker/core/decode.py"
_LIFESPAN: Final = "worker/lifespan.py"
_LEDGER: Final = "db/worker/ledger.py"
_STOCK: Final = "db/stock.py"
_DECISION: Final = "db/decision.py"

_TAKEN_ALL: Final = "(_TAKE_IN_TURN if in_turn else _TAKE).count(session, parameters) == len(ids)"
_LETTER_FIRST = """\
        lease, of_topics = parcel
        for topic in [t for t, ps in of_topics.items() if any(is_letter(p.headers) for p in ps)]:
            for p in of_topics.pop(topic):
                await opened.producer.send_and_wait(p.topic, value=p.value, key=p.key, headers=p.headers)
            await opened.producer.commit_transaction()
            await opened.producer.begin_transaction()
"""
_ON_THE_LEDGER_ALONE = """\
        async with self.sessions.begin() as apart:
            await ledger.database_time(apart)
            await ledger.add_outcomes(apart, rows.outcomes)
        await decided.add_decided(session, [], *rows[1:])
"""

MUTATIONS: Final = (
    # What the ledger is asked -------------------------------------------------------------------------
    Mutation(
        "ledger-lookup",
        "An order that was decided before is found in the ledger, and is not decided again.",
        "known outcomes are not looked up",
        (
            Edit(
                _BATCH,
                "if not found.decided and len",
                "found = found._replace(decided=0)\n        if not found.decided and len",
            ),
        ),
        (Trial("none"), Trial("crash-after-database-commit")),
    ),
    Mutation(
        "fingerprint",
        "Another content under a decided order id is a dead letter, not a duplicate.",
        "fingerprints are not compared with the ledger's",
        (Edit(_SAME_ORDER, "if row.fingerprint == fingerprint:", "if row.fingerprint:"),),
        (Trial("none"), Trial("none", 2)),
    ),
    Mutation(
        "fingerprint-in-batch",
        "Another content under an order id of the same batch is a dead letter, not a duplicate.",
        "fingerprints are not compared within a batch",
        (
            Edit(
                _TRIAGE,
                "elif _is_repeat(arrival, first_in_batch[key]):",
                "elif first_in_batch[key]:",
            ),
        ),
        (Trial("none"), Trial("none", 2)),
    ),
    Mutation(
        "duplicate-is-silent",
        "The same order from another record publishes nothing.",
        "a duplicate is taken for a redelivery",
        (Edit(_TRIAGE, "    return Standing.DUPLICATE\n", "    return Standing.REDELIVERY\n"),),
        (Trial("none"), Trial("none", 2)),
    ),
    Mutation(
        "redelivery-is-published",
        "An outcome that was decided and not published is published at the redelivery.",
        "a redelivery is taken for a duplicate",
        (Edit(_TRIAGE, "return Standing.REDELIVERY", "return Standing.DUPLICATE"),),
        (Trial("crash-after-database-commit"), Trial("crash-after-sends"), Trial("kill", 1, 3_000)),
    ),
    Mutation(
        "bytes-of-the-ledger",
        "A later publication is the stored event, byte for byte.",
        "the stored event is read as jsonb, which writes the same JSON in other bytes",
        (
            Edit(_LEDGER, "import ARRAY\n", "import ARRAY, JSONB\n"),
            Edit(_LEDGER, "cast(OrderOutcome.event, Text),", "cast(cast(OrderOutcome.event, JSONB), Text),"),
        ),
        (Trial("crash-after-database-commit"), Trial("crash-after-sends")),
    ),
    # One database transaction ----------------------------------------------------------------------------
    Mutation(
        "one-database-transaction",
        "Outcome, order and stock are written together or not at all.",
        "the ledger is committed before orders and stock",
        (
            Edit(
                _BATCH,
                "        await decided.add_decided(session, *rows)\n",
                _ON_THE_LEDGER_ALONE,
            ),
        ),
        (Trial("crash-before-database-commit"), Trial("none", 1, 3_000)),
    ),
    Mutation(
        "stock-guard",
        "Stock is taken only if enough is there at the commit, whatever was read before.",
        "the update asks for the price alone, and the table allows negative stock",
        (
            Edit(_STOCK, "        Product.stock_quantity >= _takings.c.quantity,\n", ""),
            Edit(
                "db/migrations/versions/0001_the_shop_and_its_ledger.py",
                'sa.CheckConstraint("stock_quantity >= 0"',
                'sa.CheckConstraint("stock_quantity > -1000000"',
            ),
        ),
        (Trial("small-batches", 1, 3_000), Trial("small-batches", 2, 3_000), Trial("none", 1, 5_000)),
    ),
    Mutation(
        "price-guard",
        "An order is confirmed at the price that is valid at its commit.",
        "the update asks for the stock alone",
        (Edit(_STOCK, "        Product.price == _takings.c.price,\n", ""),),
        (Test("tests/integration/worker/pipeline/test_batch.py", "price_that_changes"),),
    ),
    Mutation(
        "products-of-new-items",
        "An item's product exists at the commit, also if its foreign key was not checked.",
        "nobody looks whether all stock was taken",
        (Edit(_STOCK, _TAKEN_ALL, _TAKEN_ALL.replace(" == len(ids)", " >= 0")),),
        (Test("tests/integration/worker/pipeline/test_batch.py", "product_deleted"),),
    ),
    Mutation(
        "users-of-new-orders",
        "An order's user exists at the commit, also if the foreign key was not checked.",
        "users are read and not locked",
        (Edit("db/bulk/orders.py", "_users.with_for_update(read=True, key_share=True)", "_users"),),
        (Test("tests/integration/worker/pipeline/test_batch.py", "user_of_a_batch"),),
    ),
    Mutation(
        "triggers-of-the-shop",
        "Triggers and foreign keys that a shop adds to its tables are never skipped.",
        "nobody looks for them",
        (Edit("db/bulk/references.py", "WHERE tgtype & 4 <> 0", "WHERE false"),),
        (Test("tests/integration/db/test_references.py", "shop_adds"),),
    ),
    Mutation(
        "durable-commits",
        "A commit that a crash or a failover could lose is not taken for one.",
        "sessions commit as role and database have it, and heed no warning",
        (
            Edit("db/durable_commits.py", "set_config('synchronous_commit', 'on', false)", "1"),
            Edit("db/durable_commits.py", "if self._waited_in_vain:", "if False:"),
        ),
        (Test("tests/integration/db/test_durable_commits.py", "commit"), Trial("asynchronous-commits")),
    ),
    Mutation(
        "rolled-back-is-not-committed",
        "A transaction of which a statement has failed does not pass for committed.",
        "a COMMIT that PostgreSQL made a ROLLBACK is taken for one",
        (Edit("db/durable_commits.py", 'if status == "ROLLBACK" and', "if False and"),),
        (Test("tests/integration/db/test_durable_commits.py", "statement_failed"),),
    ),
    Mutation(
        "rows-are-counted",
        "An order of which PostgreSQL has left out a row is not decided.",
        "nobody compares how many rows were written",
        (Edit("db/bulk/rows.py", "if written != rows:", "if False:"),),
        (Test("tests/integration/worker/pipeline/test_altered_tables.py", "leaves_out"),),
    ),
    Mutation(
        "ledger-key",
        "No worker starts on a ledger that would take an order twice.",
        "nobody looks whether the ledger has its key",
        (
            Edit(
                "worker/altered_tables.py",
                'if not await is_unique(connection, "order_outcomes", "order_id"):',
                "if False:",
            ),
        ),
        (Test("tests/integration/worker/test_rights.py", "order_twice"),),
    ),
    Mutation(
        "usable-prices",
        "A price is read as the amount that it is, whatever decimals its column has.",
        "its digits are taken for cents",
        (Edit("db/stock.py", 'read if read and read[-3:-2] == "." else _with_two_decimals(read)', "read"),),
        (Test("tests/integration/worker/pipeline/test_altered_tables.py", "price"),),
    ),
    Mutation(
        "rejection-guard",
        "A rejection is still right at its commit.",
        "the products of rejected orders are not looked at again",
        (Edit(_STOCK_TAKING, "if not locked and decider.relied_on:", "if locked and decider.relied_on:"),),
        (Trial("none", 1, 5_000), Trial("none", 3, 5_000), Trial("rebalance", 1, 5_000)),
    ),
    Mutation(
        "rejection-guard-of-every-product",
        "A rejection lists every product that is short at the moment of its commit.",
        "only the products that a rejection names are looked at again",
        (
            Edit(
                _DECISION,
                "self.relied_on.update(wanted)",
                "named = [r for r in self._refusals(order, wanted) if not isinstance(r, UnknownUser)]\n"
                "        self.relied_on.update(r.product_id for r in named)",
            ),
        ),
        (Trial("small-batches", 1, 3_000), Trial("small-batches", 2, 3_000), Trial("none", 1, 5_000)),
    ),
    Mutation(
        "offset-order",
        "Within a batch a partition's orders are decided in the order of their offsets.",
        "the last order of a batch is decided first",
        (
            Edit(
                _BATCH,
                "decider.decide(a.order)) for a in new.all]",
                "decider.decide(a.order)) for a in new.all[::-1]][::-1]",
            ),
        ),
        (Trial("none"), Trial("none", 2)),
    ),
    Mutation(
        "stock-left-by-the-batch",
        "An order meets the stock that the orders before it in its batch have left.",
        "every order of a batch meets the stock from before the batch",
        (
            Edit(
                _DECISION,
                "if sum_taken > stock or",
                "if sum(q for p, q, _ in order.items if p == product_id) > stock or",
            ),
        ),
        (Trial("none"), Trial("none", 2)),
    ),
    Mutation(
        "lines-count-together",
        "Lines of an order with the same product count by their sum.",
        "each line is measured alone",
        (
            Edit(
                _DECISION,
                "if sum_taken > stock or",
                "if sum_taken - sum(q for p, q, _ in order.items if p == product_id) + quantity > stock or",
            ),
        ),
        (Trial("none"), Trial("none", 2)),
    ),
    Mutation(
        "every-reason",
        "A rejection lists all its reasons.",
        "a product that is short ends the search for reasons",
        (
            Edit(
                _DECISION,
                "            yield InsufficientStock(product_id, requested, available)\n",
                "            yield InsufficientStock(product_id, requested, available)\n            return\n",
            ),
        ),
        (Trial("none"), Trial("none", 2)),
    ),
    # One Kafka transaction ----------------------------------------------------------------------------------
    Mutation(
        "owner-before-fenced",
        "A take-over makes the previous owner unable to publish.",
        "the lease is taken without fencing the producer that it names",
        (Edit(_LEASE, "return await self.producers.fence(ids - {own_id})", "return {}"),),
        # Not the campaign: where a batch is pending, a take-over ends what its publisher left open once more.
        (Test("tests/integration/worker/kafka/test_lease.py", "commit_nothing_more"),),
    ),
    Mutation(
        "lease-as-it-was-read",
        "A lease is taken only if its row has not changed since the owner was fenced.",
        "who came between is overwritten, and not fenced",
        (
            Edit(
                _LEASES,
                "            where=(Position.epoch == seen.epoch)\n"
                "            & Position.transactional_id.is_not_distinct_from(seen.transactional_id),\n",
                "",
            ),
        ),
        (Test("tests/integration/worker/kafka/test_lease.py", "came_between"),),
    ),
    Mutation(
        "released-when-complete",
        "A lease is released when the last committed offset is visible to everyone.",
        "a lease is released as soon as Kafka has acknowledged the commit",
        (
            Edit(
                _LEASE,
                "                await held[0].producer.complete(held[0].places.values())\n",
                "",
            ),
        ),
        (Test("tests/integration/worker/kafka/test_lease.py", "behind_a_release"),),
    ),
    Mutation(
        "leases-break-with-their-producer",
        "When a transaction fails, every partition of its producer is taken over again.",
        "partitions that were not part of the transaction that failed are kept",
        (
            Edit(
                _OWNER,
                "if owned.lease.producer.is_broken)",
                "if owned.lease.producer.is_broken and self.partitions[p].failures)",
            ),
        ),
        (
            Trial("zombie-before-kafka-commit"),
            Test("tests/integration/worker/pipeline", "nothing_of_the_next"),
        ),
    ),
    Mutation(
        "what-failed-goes-alone",
        "A partition whose transaction failed delays the others only once.",
        "it is published with the others again and again",
        (
            Edit(
                _FLOW, "{p: self.partitions[p].failures for p in partitions}", "dict.fromkeys(partitions, 0)"
            ),
        ),
        (Test("tests/integration/worker/pipeline/test_consumer.py", "alone_and_last"),),
    ),
    Mutation(
        "recorded-when-published",
        "The next batch is recorded only after the previous one is certainly published.",
        "it is recorded with its decisions, whatever became of the batch before",
        (
            Edit(
                _FLOW,
                "if is_quiet and all(self.partitions[p].ownership is owned[p] for p in batch):",
                "if True:",
            ),
        ),
        (Test("tests/integration/worker/pipeline/test_consumer.py", "not_recorded_if"),),
    ),
    Mutation(
        "taken-over-when-quiet",
        "A partition is taken over while nothing is being published.",
        "a take-over reads the offsets beside a transaction of its own process",
        (
            Edit(
                _CONSUMER,
                "            await self.flow.wait_published()  # a take-over must not meet",
                "            pass  #",
            ),
        ),
        (Test("tests/integration/worker/pipeline/test_consumer.py", "when_nothing_is_being_published"),),
    ),
    Mutation(
        "take-over-order",
        "The committed offset is read after previous owners can no longer move it.",
        "the offset is read before the producer is started",
        (
            Edit(
                _TAKEOVER,
                "            taken = await self._leases.take(partitions)\n",
                "            self._leases.early = await self._leases.committed_offsets(\n"
                "                sorted({*partitions, *all_partitions})\n"
                "            )\n"
                "            taken = await self._leases.take(partitions)\n",
            ),
            Edit(
                "worker/pipeline/look.py",
                "commits = await leases.committed_offsets(sorted({*partitions, *all_partitions}))",
                "commits = leases.early",
            ),
        ),
        # Not the campaign: where a batch is pending, the outcome topics show as well how far it came.
        (Test("tests/integration/worker/pipeline/test_takeover.py", "no_owner_before"),),
    ),
    Mutation(
        "sends-awaited",
        "A transaction commits only what Kafka has acknowledged.",
        "a send that failed is committed with the others",
        (Edit(_TRANSACTION, "                one.result()\n", "                one.exception()\n"),),
        (Trial("refused-sends"), Trial("refused-sends", 2)),
    ),
    Mutation(
        "offset-in-the-transaction",
        "Outcomes and input offset become visible together or not at all.",
        "the consumer commits the offset after the outcomes",
        (
            Edit(
                _PUBLISHER,
                "                opened.commit_offsets(\n"
                "                    self._group_id,\n"
                "                    {one.lease.partition: OffsetAndMetadata(one.next_offset, one.metadata)"
                " for one in batch},\n"
                "                )\n",
                "",
            ),
            Edit(
                _FLOW,
                "        self.health.progressed()\n",
                "        await self.source.consumer.commit(\n"
                "            {one.lease.partition: one.next_offset for one in batch}\n"
                "        )\n"
                "        self.health.progressed()\n",
            ),
        ),
        (Trial("crash-after-kafka-commit"), Trial("crash-after-kafka-commit", 2)),
    ),
    Mutation(
        "letters-in-the-transaction",
        "A dead letter becomes visible together with its offset, once.",
        "dead letters have a transaction of their own",
        (Edit(_PUBLISHER, "        lease, of_topics = parcel\n", _LETTER_FIRST),),
        (Trial("crash-after-sends"), Trial("crash-before-kafka-commit")),
    ),
    Mutation(
        "producer-after-doubt",
        "After a failed transaction the committed offset is read again, and shows whether it committed.",
        "the producer stays and tries the records again",
        (
            Edit(
                _FLOW,
                "                self.owner.drop_broken()\n                self.owner.drop(together)",
                "                ",
            ),
            Edit(
                _LEASE_PRODUCERS,
                "            except BaseException:\n                self.close()\n                raise\n",
                "            finally:\n                pass\n",
            ),
            Edit(
                _TRANSACTION,
                "            await producer.begin_transaction()\n            yield",
                "            with suppress(Exception):\n"
                "                await producer.abort_transaction()\n"
                "            await producer.begin_transaction()\n            yield",
            ),
        ),
        (Trial("broker-replies"), Trial("broker-half-open"), Trial("refused-sends")),
    ),
    Mutation(
        "offset-at-take-over",
        "A take-over starts at the committed offset, whatever records were polled.",
        "the records at hand are decided, whatever offset is committed",
        (
            Edit(
                _OWNER,
                "if result.published_to not in (None, first):",
                "if result.published_to is not None and first is None:",
            ),
            Edit(
                _PARTITION,
                "if owned is None or (is_new and owned.published_to not in (None, records[0].offset)):",
                "if owned is None:",
            ),
            Edit(
                _PARTITION,
                "if start is None or records[0].offset >= start:",
                "if True:",
            ),
        ),
        (Trial("broker-freeze"), Trial("zombie-before-kafka-commit"), Trial("broker-freeze", 2)),
    ),
    Mutation(
        "published-in-turn",
        "A batch is published only after the previous one.",
        "what is decided is published at once",
        (
            Edit(
                _FLOW,
                'with self.metrics.phase("wait"):\n                await self.wait_published()\n',
                'with self.metrics.phase("wait"):\n                pass\n',
            ),
        ),
        (Test("tests/integration/worker/pipeline/test_consumer.py", "decided_while"),),
    ),
    Mutation(
        "nothing-behind-a-failure",
        "After a failed batch nothing of its partitions is published until it is redone.",
        "a batch that was decided meanwhile keeps its partitions",
        (
            Edit(
                _FLOW,
                "        return {p: records for p, records in batch.items() if p not in lost}\n",
                "        return batch\n",
            ),
        ),
        (Test("tests/integration/worker/pipeline/test_consumer.py", "behind_a_batch"),),
    ),
    Mutation(
        "ahead-of-the-first",
        "Records that were read before a partition was rewound are dropped.",
        "where nothing was ever committed the first records at hand count",
        (
            Edit(
                _PARTITION,
                "return rewound_to if rewound_to is not None and first > rewound_to else None",
                "return None",
            ),
        ),
        (Test("tests/integration/worker/pipeline/test_consumer.py", "polled_before_the_first_batch"),),
    ),
    Mutation(
        "ends-where-the-one-before-wrote",
        "A transaction that Kafka has undone and left open is ended by the next one.",
        "a transaction ends only where it writes",
        (
            Edit(
                _PUBLISHER,
                "{one for one in producer.latest_outputs - outputs if not producer.join(opened, one)}",
                "set()",
            ),
        ),
        (Test("tests/integration/worker/pipeline/test_publisher.py", "ends_also"),),
    ),
    Mutation(
        "one-event-id",
        "An outcome that is published again has the same event id.",
        "event ids are drawn",
        (
            Edit("contracts/envelope.py", "import UUID, uuid5", "import UUID, uuid4, uuid5"),
            Edit(
                "contracts/envelope.py",
                '("ce_id", _event_id_text(subject))',
                '("ce_id", str(uuid4()).encode())',
            ),
        ),
        (Trial("rewind"), Trial("rewind", 2)),
    ),
    Mutation(
        "silent-replay",
        "A replay publishes nothing that was decided before it.",
        "a replayed order is published like any redelivery",
        (Edit(_RESULTS, "if is_silenced(record.offset, first.decided_at, replays):", "if False:"),),
        (Test("tests/integration/worker/pipeline/test_batch.py", "silent_replay"),),
    ),
    Mutation(
        "replay-after-decisions",
        "A replay publishes nothing again if PostgreSQL's clock was set back.",
        "a replay is dated by the clock alone",
        (
            Edit(
                _LEDGER,
                'session.scalar(_AFTER_DECISIONS, {"last_decided_at": last_decided_at})',
                "session.scalar(select(func.now()))",
            ),
        ),
        (Test("tests/integration/worker/pipeline/test_batch.py", "question_of_the_clock"),),
    ),
    Mutation(
        "decisions-after-replay",
        "What is decided in a replay is published, if PostgreSQL's clock was set back.",
        "an order that is decided in a replay is dated by the clock alone",
        (Edit(_RESULTS, "if self._replays and (later :=", "if False and (later :="),),
        (Test("tests/integration/worker/pipeline/test_batch.py", "question_of_the_clock"),),
    ),
    Mutation(
        "silence-is-no-offset",
        "A group coordinator that does not know the offset yet is asked again.",
        "an answer without the partition is taken for: nothing was ever committed",
        (
            Edit(
                _LEASE,
                "        if any(p not in found for p in partitions):\n            raise",
                "        if any(p not in found for p in partitions):\n"
                "            return dict.fromkeys(partitions)\n"
                "            raise",
            ),
        ),
        (Test("tests/integration/worker/sandbox/test_local_cluster.py", "does_not_return_is_not_none"),),
    ),
    Mutation(
        "remembered-by-postgresql",
        "A broker that forgets committed offsets causes no second publication.",
        "Kafka is believed, whatever offset it returns",
        (
            Edit(
                _RESUME,
                "if not evidence.was_moved and (offset is None or offset < pending.pending_to):",
                "if offset is not None and offset < 0:",
            ),
        ),
        (Trial("forgotten-offsets"), Trial("forgotten-offsets", 2)),
    ),
    Mutation(
        "moved-brokers-are-found",
        "A running worker finds brokers that have all moved.",
        "its clients look for them where they were",
        (
            Edit(
                "worker/kafka/client_internals.py",
                "        if now._brokers and not",
                "        if not now._brokers and not",
            ),
        ),
        (Test("tests/acceptance/kafka_edge/test_moved_brokers.py", "bootstrap"),),
    ),
    Mutation(
        "foreign-commits-are-not-believed",
        "An offset that another consumer commits in the group's name hides no order.",
        "every client that moved the group on is believed",
        (
            Edit(
                _RESUME,
                "if evidence.is_unmarked and offset is not None and offset > pending.published_to:",
                "if offset is not None and offset < 0:",
            ),
        ),
        (
            Test("tests/acceptance/kafka_edge/test_foreign_consumer.py", "hides_no_order"),
            Trial("foreign-consumer"),
        ),
    ),
    Mutation(
        "deleted-is-not-unpublished",
        "What was published is not published again once offsets and outcomes are deleted.",
        "what retention has deleted counts as never published",
        (
            Edit(
                _PUBLISHED,
                "            raise SentinelDeletedError(",
                "            return False\n            raise SentinelDeletedError(",
            ),
        ),
        (Test("tests/acceptance/kafka_edge/test_long_away.py", "not_published_again"),),
    ),
    Mutation(
        "sentinel",
        "A batch published just before offsets were forgotten is found in the outcome topics.",
        "the batch is published again without looking",
        (
            Edit(
                _PUBLISHED,
                "return pending.pending_to if is_published else pending.published_to",
                "return pending.published_to if is_published else pending.published_to",
            ),
        ),
        (
            Test("tests/integration/worker/kafka/test_published.py", "continues_behind"),
            Trial("forgotten-offsets"),
        ),
    ),
    Mutation(
        "sentinel-of-this-publication",
        "An earlier publication of an outcome does not count as the current attempt.",
        "its place does not matter",
        (Edit(_PUBLISHED, "{place: max(sentinel.from_offset, ", "{place: max(0, "),),
        (Test("tests/integration/worker/kafka/test_published.py", "published_before"),),
    ),
    Mutation(
        "undone",
        "A batch whose commit Kafka has acknowledged and then undone is published again.",
        "what was acknowledged is taken for published",
        (
            Edit(
                _PUBLISHED,
                "before is not None and (committed is None",
                "before is not None and False and (committed is None",
            ),
        ),
        (Test("tests/acceptance/test_forgotten_offsets.py", "undone"),),
    ),
    Mutation(
        "what-hangs-is-ended",
        "A hanging transaction is ended before later records are searched.",
        "it is left open",
        (
            Edit(
                _PUBLISHED,
                "        await leases.producers.end_hanging_transactions(publishers(pending))\n",
                "",
            ),
        ),
        (Test("tests/integration/worker/kafka/test_published.py", "left_open"),),
    ),
    Mutation(
        "resting-partitions",
        "An idle worker notices that Kafka reports less than it has acknowledged.",
        "nobody asks while no orders come",
        (Edit(_WATCH, "_offset(commits[p]) < to}", "_offset(commits[p]) < -1}"),),
        (Test("tests/acceptance/test_forgotten_offsets.py", "idle_worker_notices"),),
    ),
    Mutation(
        "acknowledged-follows",
        "Only the batch just before the latest one is recorded as acknowledged.",
        "any batch is, also one that the latest does not follow on",
        (
            Edit(
                "db/worker/positions.py",
                "(Position.begun_to == _new.c.announced_to,",
                "(Position.begun_to > 0,",
            ),
        ),
        (Test("tests/integration/db/test_positions.py", "follow or once_more"),),
    ),
    Mutation(
        "epoch",
        "A previous owner cannot overwrite the position of the new one.",
        "everybody may write it",
        (Edit("db/worker/positions.py", "        Position.epoch == _new.c.epoch,\n", ""),),
        (Test("tests/integration/db/test_positions.py", "owner_before"),),
    ),
    # What goes wrong --------------------------------------------------------------------------------------
    Mutation(
        "seek-after-failure",
        "Records of a failed batch are read again.",
        "what failed is paused and not sought again",
        (
            Edit(
                _RETRIES,
                "                self.read_from(partition, one.rewind(first))\n",
                "                pass\n",
            ),
        ),
        (Trial("backends"), Trial("refused-sends"), Trial("locks")),
    ),
    Mutation(
        "resume-after-failure",
        "A partition that was paused after a failure continues.",
        "nobody resumes what was paused",
        (
            Edit(
                _RETRIES,
                "            consumer.resume(*(p for p in due if p in consumer.assignment()))\n",
                "            pass\n",
            ),
        ),
        (Trial("refused-sends"), Trial("backends"), Trial("locks")),
    ),
    Mutation(
        "outages-wait",
        "If a server is away, orders wait; none becomes a dead letter because of it.",
        "the errors of a server are looked for in the orders",
        (
            Edit(
                _RETRY,
                "        return Remedy.SPLIT\n    return Remedy.WAIT\n",
                "        return Remedy.SPLIT\n    return Remedy.SPLIT\n",
            ),
        ),
        (Test("tests/integration/worker/pipeline/test_batch.py", "on_no_row_of_the_orders"),),
    ),
    Mutation(
        "missing-tables-wait",
        "A table that is missing for moments makes no order a dead letter.",
        "what a statement misses is looked for in the orders",
        (Edit(_RETRY, "and not _is_of_our_statement(error):", "and True:"),),
        (Test("tests/integration/worker/pipeline/test_altered_tables.py", "missing_for_moments"),),
    ),
    Mutation(
        "locked-rows-wait-alone",
        "A row that somebody keeps locked holds up only the partitions whose orders need it.",
        "all partitions of the batch wait for it",
        (
            Edit(
                _FLOW,
                "        if isinstance(error, LockedRowsError):\n            return error.partitions\n",
                "",
            ),
        ),
        (Test("tests/integration/worker/pipeline/test_consumer.py", "locked_product"),),
    ),
    Mutation(
        "tables-are-checked-again",
        "Tables that are altered beside a running worker do not lose its orders in silence.",
        "they are checked at the start only",
        (
            Edit(
                _FLOW,
                "        await self.tables.require_unaltered(at_once=self.retries.database_failures > 0)\n",
                "",
            ),
        ),
        (Test("tests/acceptance/test_altered_while_running.py", "altered_under_a_worker"),),
    ),
    Mutation(
        "too-few-in-sync-waits-alone",
        "A partition whose output has too few copies in sync holds up no other.",
        "nobody looks before a transaction begins",
        (Edit(_PUBLISHER, "        await self._require_in_sync(producer.client.client, to_send)\n", ""),),
        (Test("tests/integration/worker/sandbox/test_local_cluster.py", "in_sync_waits_alone"),),
    ),
    Mutation(
        "trouble-of-all-waits",
        "An error that refuses every order makes no order a dead letter.",
        "an order that is refused alone is always the cause",
        (Edit(_BATCH, "if not may_concern_all(failure):", "if failure:"),),
        (Trial("constraint"), Trial("constraint", 2)),
    ),
    Mutation(
        "locks-of-the-stopped",
        "A frozen worker that holds locks does not block the others.",
        "PostgreSQL ends no idle transaction",
        (
            Edit(
                "worker/database.py",
                '        "idle_in_transaction_session_timeout": str(settings.session_timeout_ms),\n',
                "",
            ),
        ),
        (Trial("zombie-before-database-commit"), Trial("zombie-before-database-commit", 2)),
    ),
    Mutation(
        "one-refused-order",
        "An order that PostgreSQL refuses is found, and delays no other order.",
        "errors of one order wait like all others",
        (
            Edit(
                _RETRY,
                "        return Remedy.SPLIT\n    return Remedy.WAIT\n",
                "        return Remedy.WAIT\n    return Remedy.WAIT\n",
            ),
        ),
        (Test("tests/integration/worker/pipeline/test_batch.py", "refuses_is_found"),),
    ),
    Mutation(
        "withheld-is-looked-for",
        "A withheld outcome is not published again if an earlier attempt has published it.",
        "it is tried without looking",
        (
            Edit(
                _LATE_PUBLICATION,
                "        published = await self._mark_published(rows)\n",
                "        published: set[UUID] = set()\n",
            ),
        ),
        (Test("tests/integration/worker/pipeline/test_withheld.py", "dies_before"),),
    ),
    Mutation(
        "withheld-after-its-batch",
        "A withheld outcome is published only when its batch is committed for good.",
        "as soon as its topic takes it",
        (Edit(_WITHHELD, "commit and row.source_offset < commit.offset and", "(commit or True) and"),),
        (Test("tests/integration/worker/pipeline/test_withheld.py", "done_with"),),
    ),
    Mutation(
        "withheld-apart",
        "A withheld outcome is not published with its batch.",
        "it is, where it comes again",
        (Edit(_SET_ASIDE, "    if not order_ids:\n        return results\n", "    return results\n"),),
        (Test("tests/integration/worker/pipeline/test_withheld.py", "done_with"),),
    ),
    Mutation(
        "withheld-by-the-owner",
        "A previous owner cannot set outcomes aside.",
        "each batch that meets a refusal does",
        (
            Edit(
                _SET_ASIDE,
                "if not await leases.hold_epoch(",
                "if False and not await leases.hold_epoch(",
            ),
        ),
        (Test("tests/integration/worker/pipeline/test_withheld.py", "owner_before"),),
    ),
    Mutation(
        "batches-fit",
        "Batches are made to fit the limit of their topic.",
        "they are as large as ever",
        (
            Edit(
                _PUBLISHER,
                "    max_bytes = min(MAX_BATCH_BYTES, limits.max_batch_bytes)\n",
                "    max_bytes = MAX_BATCH_BYTES\n",
            ),
        ),
        (
            Trial("settings-changed"),
            Test("tests/integration/worker/pipeline/test_publisher.py", "limit_was_lowered"),
        ),
    ),
    Mutation(
        "refused-times",
        "A timestamp that the topic refuses is replaced by the time of publishing.",
        "it is sent as it is",
        (
            Edit(
                _ADAPTED,
                "    if limits.takes_time(publications[0].timestamp_ms, now_ms):\n",
                "    if True:\n",
            ),
        ),
        (
            Trial("settings-changed"),
            Test("tests/integration/worker/pipeline/test_publisher.py", "becomes_that_of_publishing"),
        ),
    ),
    Mutation(
        "keys-of-letters",
        "A dead letter without a key gets one if its topic requires keys.",
        "it has none",
        (Edit(_ADAPTED, "    if limits.needs_key:\n", "    if False:\n"),),
        (
            Trial("settings-changed"),
            Test("tests/integration/worker/pipeline/test_publisher.py", "topic_is_compacted"),
        ),
    ),
    Mutation(
        "watchdog",
        "A worker that hangs ends itself.",
        "nobody watches",
        (
            Edit(
                _LIFESPAN,
                "        start_watchdog(self.health, self.settings.stall_limit_seconds,"
                " self.settings.refused_limit_seconds)\n",
                "",
            ),
        ),
        (Test("tests/acceptance/run/test_stop.py", "stall_ends"),),
    ),
    # What comes in ----------------------------------------------------------------------------------------
    Mutation(
        "from-the-beginning",
        "Orders that were placed before the first worker started are decided.",
        "a new group begins at the end of the topic",
        (Edit(_RECORDS, "OffsetResetStrategy.EARLIEST)", "OffsetResetStrategy.LATEST)"),),
        (Trial("none"), Trial("none", 2)),
    ),
    Mutation(
        "no-aborted-orders",
        "Orders of an upstream transaction that was aborted are not decided.",
        "the input is read uncommitted",
        (Edit(_BROKER, 'isolation_level="read_committed"', 'isolation_level="read_uncommitted"'),),
        (Test("tests/acceptance/test_order_flow.py", "aborted_upstream"),),
    ),
    Mutation(
        "no-commit-before-the-work",
        "Nothing but a finished Kafka transaction moves the offset.",
        "records are acknowledged as they are received",
        (Edit(_BROKER, "ack_policy=AckPolicy.MANUAL", "ack_policy=AckPolicy.ACK_FIRST"),),
        (Trial("database-freeze-kill"), Trial("database-freeze-kill", 2)),
    ),
    Mutation(
        "records-as-they-came",
        "A null header loses nothing.",
        "FastStream parses the records",
        (Edit(_BROKER, "        parser=_as_it_came,\n", ""),),
        (Trial("none"), Trial("none", 2)),
    ),
    Mutation(
        "poison-is-no-error",
        "A value that is not an order becomes a dead letter and delays no other record.",
        "what the contract refuses escapes as an error",
        (
            Edit(
                _DECODE,
                "return _not_json(value) or _invalid(error, value)",
                "raise",
            ),
        ),
        (Trial("none"), Trial("none", 2), Trial("none", 1, 5_000)),
    ),
    # Kafka's edge -----------------------------------------------------------------------------------------
    Mutation(
        "neighbours-of-the-unreadable",
        "A record that cannot be unpacked loses no other record.",
        "the error of one partition's record ends the poll",
        (
            Edit(
                _UNPACKING,
                "except Exception as error:  # of a codec",
                "except ZeroDivisionError as error:  #",
            ),
        ),
        (
            Trial("odd-header-names"),
            Test("tests/acceptance/kafka_edge/test_odd_header_names.py", "loses_no_order"),
        ),
    ),
    Mutation(
        "polls-are-accepted",
        "Records that a poll returned and that were not handled are read again.",
        "what is returned counts as handled",
        (Edit(_PLACES, "                self.offered[partition] = began\n", "                pass\n"),),
        (Test("tests/integration/worker/kafka/test_record_consumer.py", "not_accepted_comes_again"),),
    ),
    Mutation(
        "the-later-pause",
        "A partition's pause is not cut short by one that ends sooner.",
        "the last pause counts",
        (Edit(_RETRIES, "max(until, self._until.get(partition, until))", "until"),),
        (Test("tests/integration/worker/pipeline/test_pauses.py", "cut_short"),),
    ),
    Mutation(
        "offsets-beyond-the-end",
        "A committed offset beyond the log's end loses no later order.",
        "the offset is believed",
        (
            Edit(_RESUME, "if offset is not None and offset > evidence.end:", "if offset == -1:"),
            Edit(_RESUME, "if not evidence.is_known_log:", "if offset == -1:"),
        ),
        (
            Trial("restored-volume"),
            Test("tests/integration/worker/pipeline/test_takeover.py", "beyond_the_end"),
        ),
    ),
    Mutation(
        "silence-in-another-log",
        "A log that is read from its first record causes no second publication.",
        "nothing is recorded before the offset moves",
        (Edit(_TAKEOVER, "if silent_to > evidence.first:", "if silent_to < 0:"),),
        (
            Trial("restored-volume"),
            Test("tests/integration/worker/pipeline/test_takeover.py", "beyond_the_end"),
        ),
    ),
    Mutation(
        "a-cut-log-is-looked-at-twice",
        "A leader that reports too low an end for a moment changes nothing.",
        "the first answer is believed",
        (
            Edit(
                _TAKEOVER,
                "if time.monotonic() - since < self._cut_for_seconds:",
                "if time.monotonic() < since:",
            ),
        ),
        (Test("tests/integration/worker/pipeline/test_takeover.py", "seems_truncated"),),
    ),
    Mutation(
        "a-backup-decides-nothing",
        "With a PostgreSQL that has less than Kafka committed, nothing is decided.",
        "nobody compares",
        (Edit(_RESUME, "if expected > known:", "if expected < 0:"),),
        (Test("tests/integration/worker/pipeline/test_takeover.py", "all_partitions_wait"),),
    ),
    Mutation(
        "a-backup-under-a-running-worker",
        "A row of `positions` that its owner did not write stops it.",
        "only the epoch counts",
        (
            Edit(
                _POSITIONS,
                "_new.c.follows == _FOLLOWS_ANYTHING,",
                "_new.c.follows >= _FOLLOWS_ANYTHING,",
            ),
        ),
        (Test("tests/integration/db/test_positions.py", "row_of_a_backup"),),
    ),
    Mutation(
        "a-new-group-asks",
        "A group of another name publishes nothing again.",
        "it begins at the first record",
        (Edit(_RESUME, " or not others:\n", " or others:\n"),),
        (
            Trial("group-renamed"),
            Test("tests/integration/worker/pipeline/test_takeover.py", "new_group_waits"),
        ),
    ),
    Mutation(
        "the-last-group-goes-on",
        "Of several earlier groups the one that came furthest is the one to take over.",
        "an earlier one may be taken over as well",
        (
            Edit(
                "worker/operations/replay/from_group.py",
                "    require_furthest(old_group, handovers, others)\n",
                "",
            ),
        ),
        (Test("tests/acceptance/test_from_group.py", "of_several_earlier_names"),),
    ),
    Mutation(
        "deleted-is-noted",
        "Records that retention deletes before they are decided are recorded.",
        "the partition continues in silence",
        (Edit(_RESUME, "if start < evidence.first else None", "if start < 0 else None"),),
        (
            Trial("deleted-records"),
            Test("tests/integration/worker/pipeline/test_takeover.py", "lasting_note"),
        ),
    ),
    Mutation(
        "a-late-answer-is-no-life",
        "A worker that hangs is not kept alive by its own late probes.",
        "each failed question is a sign of life",
        (
            Edit(
                _HEALTH,
                "self._troubles.get(server), why\n        if alive:\n",
                "self._troubles.get(server), why\n        if True:\n",
            ),
        ),
        (Test("tests/unit/worker/observability/test_health.py", "hangs_shows_too"),),
    ),
    Mutation(
        "unreadable-is-said",
        "A record that was read raw becomes a dead letter that says so, for any bytes.",
        "it is decoded as any other",
        (Edit(_DECODING, 'invalid[place] = Invalid(DeadLetterCode.UNREADABLE, record.why, "")', "pass"),),
        (Trial("odd-header-names"),),
    ),
    Mutation(
        "an-unreadable-batch-waits",
        "Only an operator skips a batch that cannot be unpacked.",
        "its partition continues after it",
        (
            Edit(
                _RECORDS,
                "        self.unreadable[partition] = found.span\n\n    def _look",
                "        self.skip_span(found.span)\n\n    def _look",
            ),
        ),
        (Test("tests/acceptance/kafka_edge/test_broken_batches.py", "waits_alone"),),
    ),
    Mutation(
        "partitions-are-found",
        "Partitions that are added are read within half a minute.",
        "the list of partitions is asked for every five minutes",
        (Edit(_BROKER, "METADATA_MAX_AGE_MS: Final = 10_000", "METADATA_MAX_AGE_MS: Final = 300_000"),),
        (Trial("partitions-added"),),
    ),
    Mutation(
        "behind-markers",
        "An idle group's committed offset reaches the log's end, where transactions end with markers.",
        "only what was decided is committed",
        (
            Edit(
                _MAINTENANCE,
                "        await self._commit_past_markers(consumer)\n        await self._look_at_database()\n",
                "        await self._look_at_database()\n",
            ),
            Edit(_MAINTENANCE, "await self._commit_past_markers(consumer)\n\n", "await asyncio.sleep(0)\n\n"),
        ),
        (Test("tests/acceptance/kafka_edge/test_health.py", "others_read_no_lag"),),
    ),
    Mutation(
        "an-idle-commit-looks-again",
        "An idle commit only skips what has nothing to decide at the time of the commit.",
        "the position of before it waited counts",
        (
            Edit(
                _IDLE,
                "        async with self.orders.between_batches():\n"
                "            position = self._position(partition)\n"
                "            owned = await self._owned(partition, position)\n"
                "            position = self._position(partition)\n",
                "        position = self.source.consumer.accepted_position(partition)\n"
                "        async with self.orders.between_batches():\n"
                "            owned = await self._owned(partition, position)\n",
            ),
        ),
        (Test("tests/integration/worker/pipeline/test_consumer.py", "idle_commit"),),
    ),
    Mutation(
        "lag-is-what-is-not-published",
        "Records in flight count as lag until they are published.",
        "what was fetched counts as published",
        (
            Edit(
                _WATCH,
                "for partition in assigned - self._flow.in_hand():\n            # Past",
                "for partition in assigned:\n            # Past",
            ),
        ),
        (Test("tests/acceptance/kafka_edge/test_health.py", "in_hand"),),
    ),
    Mutation(
        "published-after-all",
        "A partition does not wait for a failed step that turns out to have succeeded.",
        "it waits until it publishes again",
        (Edit(_OWNER, "if first is None or (result.published_to or 0) > first:", "if first is None:"),),
        (Test("tests/integration/worker/pipeline/test_consumer.py", "reply_was_lost"),),
    ),
    Mutation(
        "in-hand-while-taken-over",
        "If a take-over seeks back, later records that were polled before are read again.",
        "it is taken for what comes next",
        (Edit(_OWNER, "self.retries.read_from(", "self.source.seek("),),
        (Test("tests/integration/worker/pipeline/test_consumer.py", "polled_before_a_take_over"),),
    ),
    Mutation(
        "owned-between-assignments",
        "Between two assignments no partition is taken over.",
        "those of the former one are",
        (
            Edit(
                "worker/pipeline/input.py",
                "set() if self.is_revoked else self.assignment()",
                "self.assignment()",
            ),
        ),
        (Test("tests/integration/worker/pipeline/test_consumer.py", "polled_before_a_rebalance"),),
    ),
    Mutation(
        "refused-twice",
        "An order that is refused twice is not at fault because others were confirmed in between.",
        "it becomes a dead letter",
        (Edit("worker/pipeline/refused_orders.py", "MIN_REFUSALS: Final = 3", "MIN_REFUSALS: Final = 2"),),
        (Test("tests/integration/worker/pipeline/test_altered_tables.py", "comes_back_between"),),
    ),
    Mutation(
        "no-lag-of-an-absent-kafka",
        "While Kafka does not answer, no lag is reported.",
        "the last one stays",
        (
            Edit(
                _WATCH,
                "            self._metrics.lag.clear()\n            self._health.lags(None)\n",
                "",
            ),
        ),
        (Test("tests/acceptance/kafka_edge/test_health_on_a_network.py", "no_lag_is_reported"),),
    ),
    Mutation(
        "as-many-files-as-it-may",
        "A worker opens as many files as the system allows it.",
        "the usual soft limit counts",
        (Edit("worker/runtime/serving.py", "    raise_limit()\n", ""),),
        (Test("tests/acceptance/kafka_edge/test_many_partitions.py", "five_hundred"),),
    ),
)
