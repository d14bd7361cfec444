"""The AsyncAPI document: valid for AsyncAPI's own parser, complete, and with the facts that the code has."""

import inspect
import json
import re
from datetime import UTC, datetime
from typing import Any

from contracts import envelope
from contracts.asyncapi import FILE, document
from contracts.dead_letters import read_letter_headers
from contracts.schema import schemas
from contracts.topics import DEFAULT_PARTITIONS, TOPICS, Topics
from contracts.version import __version__
from tests.support import contract_tools
from worker.cli.setup import topics_create
from worker.core.dead_letter import _OUR_HEADERS, REDRIVE_HEADER

DOCUMENT = document()
COMPONENTS = DOCUMENT["components"]


def resolved(reference: str) -> Any:
    found: Any = DOCUMENT
    for name in reference.removeprefix("#/").split("/"):
        found = found[name]
    return found


def references(part: Any) -> list[str]:
    if isinstance(part, list):
        return [reference for one in part for reference in references(one)]
    if not isinstance(part, dict):
        return []
    own = [part["$ref"]] if "$ref" in part else []
    return own + [reference for one in part.values() for reference in references(one)]


def test_asyncapis_own_parser_has_nothing_against_it():
    assert [one for one in contract_tools.of_document(FILE) if one["severity"] <= 1] == []


def test_the_document_checked_in_is_that_of_the_code():
    assert json.loads(FILE.read_text("utf-8")) == DOCUMENT, "run: make schemas"


def test_every_reference_leads_somewhere():
    found = references(DOCUMENT)
    assert len(found) > 20
    assert all(resolved(reference) for reference in found)


def test_its_version_is_that_of_the_package():
    assert DOCUMENT["info"]["version"] == __version__


def test_names_can_be_classes_in_java_go_and_typescript():
    for names in (COMPONENTS["messages"], COMPONENTS["schemas"]):
        assert all(re.fullmatch(r"[A-Z][A-Za-z]+", name) for name in names)
    for names in (DOCUMENT["channels"], DOCUMENT["operations"]):
        assert all(re.fullmatch(r"[a-z][A-Za-z]+", name) for name in names)
    for name, schema in COMPONENTS["schemas"].items():
        assert schema.get("title", name) == name


def test_every_topic_has_its_settings_a_key_headers_and_an_example():
    by_address = {channel["address"]: channel for channel in DOCUMENT["channels"].values()}
    assert list(by_address) == [topic.name for topic in TOPICS]
    for topic in TOPICS:
        channel = by_address[topic.name]
        kafka = channel["bindings"]["kafka"]
        configured = kafka["topicConfiguration"]
        assert (kafka["topic"], kafka["partitions"]) == (topic.name, DEFAULT_PARTITIONS)
        assert configured["retention.ms"] == topic.retention_days * 24 * 60 * 60 * 1000
        assert configured["cleanup.policy"] == ["delete"]
        assert configured["max.message.bytes"] == topic.max_message_bytes
        (reference,) = (message["$ref"] for message in channel["messages"].values())
        message = resolved(reference)
        assert {"headers", "payload", "bindings", "examples", "contentType"} <= set(message)
        assert message["contentType"] == ("application/json" if topic.event else "application/octet-stream")
        assert message["bindings"]["kafka"]["key"]


def test_partitions_are_those_that_topics_create_makes():
    assert inspect.signature(topics_create).parameters["partitions"].default == DEFAULT_PARTITIONS


def test_it_names_the_topics_brokers_and_group_of_a_worker():
    own = document(Topics("a", "b", "c", "d"), ("one:9092", "two:9092"), "kafka-secure", "shop")
    assert [channel["address"] for channel in own["channels"].values()] == ["a", "b", "c", "d"]
    assert [server["host"] for server in own["servers"].values()] == ["one:9092", "two:9092"]
    assert {server["protocol"] for server in own["servers"].values()} == {"kafka-secure"}
    assert own["operations"]["decideOrder"]["bindings"]["kafka"]["groupId"]["enum"] == ["shop"]


def test_every_header_that_a_worker_writes_is_described():
    described = schemas()
    source = [
        ("correlation_id", b"7"),
        ("traceparent", b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        ("supersedes", b"0d9c1f6e-1b7a-4a35-9a55-2f6a7f0c8e11"),
    ]
    key = b"0d9c1f6e-1b7a-4a35-9a55-2f6a7f0c8e11"
    sent = envelope.outcome_headers(key, "order-confirmed", datetime(2026, 11, 23, tzinfo=UTC), source)
    assert {name for name, _ in [*sent, envelope.REPUBLISHED]} <= set(
        described["outcome-headers"]["properties"]
    )
    letters = set(described["dead-letter-headers"]["properties"])
    assert letters - {"correlation_id"} == {*_OUR_HEADERS, REDRIVE_HEADER}


def test_the_dead_letter_shown_is_read_as_one():
    (example,) = COMPONENTS["messages"]["DeadLetter"]["examples"]
    said = read_letter_headers([(name, value.encode()) for name, value in example["headers"].items()])
    assert said.source is not None
    assert said.failed_at is not None
    assert (said.code, said.path) == ("invalid_order", "items.0.quantity")
