"""What `worker.kafka` stands on of aiokafka's private side: red as soon as another version changes it."""

import hashlib
import inspect
from collections.abc import Callable
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.conn import AIOKafkaConnection, OAuthAuthenticator, create_conn
from aiokafka.consumer.fetcher import Fetcher, FetchError, FetchResult, PartitionRecords
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.consumer.subscription_state import Assignment, SubscriptionState, TopicPartitionState

# Ours stands in its place by now.
CONNECTION: Any = next(kind for kind in AIOKafkaConnection.__mro__ if kind.__module__ == "aiokafka.conn")


@pytest.mark.parametrize(
    ("ours", "theirs", "digest"),
    [
        ("RecordConsumer.getmany", AIOKafkaConsumer.getmany, "bc6d248e42a4"),
        ("membership.check_group", GroupCoordinator.check_errors, "ba6ca51ad348"),
        (
            "membership.check_group, which counts on a rejoin to start new tasks",
            GroupCoordinator._GroupCoordinator__coordination_routine,
            "f814463c6b44",
        ),
        ("membership.leave_while_joining", GroupCoordinator.ensure_active_group, "33c84c1a9301"),
        ("RecordConsumer._poll and _drain", Fetcher.fetched_records, "be4348896b9b"),
        ("RecordConsumer._unpack", FetchResult.getall, "3e717e30de50"),
        ("RecordConsumer._unpack", FetchResult.check_assignment, "b5340df67e3f"),
        (
            "unpack and raw_batch.read_first_batch",
            PartitionRecords._unpack_records,
            "b803e6d46480",
        ),
        ("raw_batch._Aborting", PartitionRecords._consume_aborted_up_to, "56876530cd64"),
        ("raw_batch._consumer_record", PartitionRecords._consumer_record, "e668541600b0"),
        ("internals.ContainedFetcher and Answers", Fetcher._proc_fetch_request, "59bf948fff47"),
        ("internals.ContainedFetcher._set_error", Fetcher._set_error, "d29810f3f509"),
        (
            "internals.Hold, which costs no other partition anything",
            Fetcher._get_actions_per_node,
            "1dab2cf937d1",
        ),
        ("internals.adopt, which counts on the loop not having begun", Fetcher.__init__, "bf21ecb7e0f2"),
        ("Places.sought", Fetcher.seek_to, "f0ba6aba6c22"),
        ("Places.sought", Fetcher.request_offset_reset, "e5bd8ba88386"),
        ("internals.wait_for_records", Fetcher._create_fetch_waiter, "61d840568746"),
        ("internals.polling", SubscriptionState.fetch_context, "ff2a654dca23"),
        ("Places.left", TopicPartitionState.consumed_to, "c7b8f0f99ce9"),
        ("RecordConsumer._state_of", Assignment.state_value, "183fea82ef48"),
        ("RecordConsumer._look_at_hold_or_error", FetchError, "10966ad4c795"),
        ("kafka_login, whose class it is to build", create_conn, "673276cbddb4"),
        ("kafka_login._Connection.connect", CONNECTION.connect, "b0f9ba7f0cf6"),
        ("kafka_login._TokenAuthenticator", CONNECTION._do_sasl_handshake, "d4f7b5acbbec"),
        ("kafka_login._TokenAuthenticator", OAuthAuthenticator.step, "3a013ab61098"),
    ],
)
def test_what_ours_was_written_against_is_unchanged(ours: str, theirs: Callable[..., Any], digest: str):
    found = hashlib.sha256(inspect.getsource(theirs).encode()).hexdigest()[:12]
    assert found == digest, f"aiokafka changed {theirs.__qualname__}: read it, see that {ours} still fits"


def test_the_one_place_that_makes_a_fetcher_is_the_consumers_start():
    assert inspect.getsource(AIOKafkaConsumer.start).count("self._fetcher = Fetcher(") == 1
