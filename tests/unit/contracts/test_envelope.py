from datetime import UTC, datetime, timedelta, timezone
from uuid import NAMESPACE_URL, UUID, uuid5

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.envelope import (
    CAUSATION_ID,
    CAUSATION_SOURCE,
    EVENT_ID_NAMESPACE,
    MAX_BAGGAGE,
    MAX_TRACESTATE,
    REOPENED_ID_NAMESPACE,
    SUPERSEDES,
    decode_passed_on,
    encode_passed_on,
    event_id,
    outcome_headers,
    passed_through,
    reopened_id,
)
from tests.support.pages import read

ORDER_ID = UUID("0d9c1f6e-1b7a-4a35-9a55-2f6a7f0c8e11")
SUBJECT = str(ORDER_ID).encode()
DECIDED_AT = datetime(2026, 11, 23, 10, 0, 0, 42_000, tzinfo=UTC)
TRACEPARENT = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.mark.guarantee_2
def test_any_subscriber_can_compute_the_event_id() -> None:
    assert uuid5(NAMESPACE_URL, "urn:order-worker:outcome") == EVENT_ID_NAMESPACE
    # Subscribers remember event ids of years ago: this value may not change.
    assert str(event_id(ORDER_ID)) == "7e038589-2251-542e-aff4-0be223255b7d"


@pytest.mark.guarantee_2
@given(st.uuids(), st.uuids())
def test_an_event_id_belongs_to_one_order_id(one: UUID, other: UUID) -> None:
    assert (event_id(one) == event_id(other)) == (one == other)
    assert event_id(one) != one


@pytest.mark.guarantee_2
@given(st.uuids())
def test_the_headers_name_the_event_id_whatever_the_order_id(order_id: UUID) -> None:
    headers = dict(outcome_headers(str(order_id).encode(), "order-confirmed", DECIDED_AT, []))
    assert headers["ce_id"] == str(event_id(order_id)).encode()


def test_an_outcome_carries_cloudevents_headers_in_binary_mode() -> None:
    assert outcome_headers(SUBJECT, "order-confirmed", DECIDED_AT, []) == [
        ("ce_specversion", b"1.0"),
        ("ce_id", str(event_id(ORDER_ID)).encode()),
        ("ce_source", b"/order-worker"),
        ("ce_type", b"order-confirmed"),
        ("ce_dataschema", b"urn:order-worker:order-confirmed:v1"),
        ("ce_time", b"2026-11-23T10:00:00.042000Z"),
        ("ce_subject", str(ORDER_ID).encode()),
        ("content-type", b"application/json"),
    ]


def test_the_rules_of_the_contract_list_the_headers_in_this_order() -> None:
    names = [name for name, _ in outcome_headers(SUBJECT, "order-confirmed", DECIDED_AT)]
    assert f"| {', '.join(f'`{name}`' for name in names)} |" in read("docs/contract-rules.md")


def test_the_time_is_reported_in_utc_also_where_it_first_came_in_another_zone() -> None:
    later = DECIDED_AT + timedelta(hours=1)  # not asked before in this process: answers are cached
    for zone in (timezone(timedelta(hours=2)), UTC):
        headers = dict(outcome_headers(SUBJECT, "order-confirmed", later.astimezone(zone), []))
        assert headers["ce_time"] == b"2026-11-23T11:00:00.042000Z"


def test_correlation_id_and_traceparent_follow_the_cloudevents_headers() -> None:
    source = [("traceparent", TRACEPARENT), ("correlation_id", "für-7".encode())]
    passed_on = passed_through(source)
    assert outcome_headers(SUBJECT, "order-rejected", DECIDED_AT, passed_on)[8:] == source


def test_headers_of_the_source_never_replace_those_of_the_outcome() -> None:
    source = [(name, b"forged") for name in ("ce_id", "ce_type", "content-type", "reply_to", "error.code")]
    headers = outcome_headers(SUBJECT, "order-confirmed", DECIDED_AT, passed_through(source))
    assert b"forged" not in dict(headers).values()
    assert len(headers) == len(dict(headers)) == 8


def test_anybody_can_compute_the_id_under_which_an_order_is_placed_again() -> None:
    assert uuid5(NAMESPACE_URL, "urn:order-worker:reopened") == REOPENED_ID_NAMESPACE
    # Orders of years ago were placed again under these ids: this value may not change.
    assert str(reopened_id(ORDER_ID)) == "f1886276-0ebe-520a-8593-26b23f909272"
    assert reopened_id(reopened_id(ORDER_ID)) not in (ORDER_ID, reopened_id(ORDER_ID))


@pytest.mark.parametrize("value", [None, b"", SUBJECT.upper(), SUBJECT[:-1], SUBJECT + b"\n", b"\xff" * 36])
def test_an_outcome_names_the_order_that_it_supersedes_if_that_is_an_id(value: bytes | None) -> None:
    source = [("supersedes", value), (SUPERSEDES, SUBJECT), (SUPERSEDES, b"another")]
    assert passed_through(source) == [("supersedes", SUBJECT)]


@pytest.mark.parametrize(
    "value",
    [None, b"", b"\xff\xfe", b"a\x00b", b"a\r\nb", b"a\x7f", b"x" * 257],
    ids=["null", "empty", "not UTF-8", "NUL", "line break", "DEL", "257 characters"],
)
def test_an_odd_correlation_id_is_left_out(value: bytes | None) -> None:
    assert passed_through([("correlation_id", value)]) == []


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        TRACEPARENT.upper(),
        b"ff" + TRACEPARENT[2:],
        b"00-" + b"0" * 32 + TRACEPARENT[35:],
        TRACEPARENT.replace(b"00f067aa0ba902b7", b"0" * 16),
        TRACEPARENT + b"-more",
        TRACEPARENT[:-1],
        TRACEPARENT + b"\n",
        TRACEPARENT.replace(b"-", b"_"),
        b"\xff",
    ],
)
def test_an_odd_traceparent_is_left_out(value: bytes | None) -> None:
    """And what belongs to its trace with it, as W3C has it."""
    assert passed_through([("traceparent", value), ("tracestate", b"a=1"), ("baggage", b"k=v")]) == []


def test_what_belongs_to_a_trace_is_passed_through_with_it():
    trace = [("baggage", b"user=7;p=1"), ("traceparent", TRACEPARENT), ("tracestate", b"shop=00f0,x=y")]
    assert passed_through(trace) == trace
    later = b"01" + TRACEPARENT[2:] + b"-more"
    assert passed_through([("traceparent", later)]) == [("traceparent", later)]


@pytest.mark.parametrize(("name", "most"), [("tracestate", MAX_TRACESTATE), ("baggage", MAX_BAGGAGE)])
def test_a_trace_carries_so_much_and_no_more(name: str, most: int):
    for size in (most, most + 1):
        found = passed_through([("traceparent", TRACEPARENT), (name, b"x" * size)])
        assert (name in dict(found)) == (size == most)


def test_an_outcome_names_the_event_that_caused_it_by_id_and_source():
    source = [("ce_source", b"/shop"), ("ce_type", b"order-placed"), ("ce_id", b"e-1")]
    assert passed_through(source) == [(CAUSATION_ID, b"e-1"), (CAUSATION_SOURCE, b"/shop")]


@pytest.mark.parametrize("name", ["ce_id", "ce_source"])
@pytest.mark.parametrize("value", [None, b"", b"\xff", b"a\nb", b"x" * 257])
def test_half_of_the_causing_event_is_none(name: str, value: bytes | None):
    source = {"ce_id": b"e-1", "ce_source": b"/shop", name: value}
    assert passed_through(source.items()) == []


def test_what_a_later_publication_has_as_well_is_remembered_as_text():
    cause = [("ce_id", b"e-1"), ("ce_source", "/für".encode())]
    order = [("correlation_id", b'"c"\\'), ("traceparent", TRACEPARENT), ("supersedes", SUBJECT), *cause]
    found = passed_through(order)
    kept = [header for header in found if header[0] != "traceparent"]
    assert decode_passed_on(encode_passed_on(found)) == kept
    # Out of an outcome in its topic as well, whatever else it has.
    outcome = outcome_headers(SUBJECT, "order-confirmed", DECIDED_AT, found)
    assert (
        decode_passed_on(encode_passed_on([("correlation_id", b"\xff"), *outcome, ("republished", b"true")]))
        == kept
    )
    assert (encode_passed_on([("traceparent", TRACEPARENT)]), decode_passed_on(None)) == (None, [])


def test_a_correlation_id_of_256_characters_is_passed_through() -> None:
    assert passed_through([("correlation_id", b"x" * 256)]) == [("correlation_id", b"x" * 256)]


def test_of_a_repeated_header_the_first_sound_one_is_passed_through() -> None:
    source = [
        ("correlation_id", None),
        ("correlation_id", b"\xff"),
        ("correlation_id", b"1"),
        ("correlation_id", b"2"),
    ]
    assert passed_through(source) == [("correlation_id", b"1")]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["correlation_id", "traceparent", "baggage", "content-type", "x"]),
            st.none() | st.binary(max_size=300),
        )
    )
)
def test_no_header_ever_raises(headers: list[tuple[str, bytes | None]]) -> None:
    kept = passed_through(headers)
    assert set(kept) <= set(headers)
    assert len(dict(kept)) == len(kept)
