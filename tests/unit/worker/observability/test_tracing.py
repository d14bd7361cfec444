"""What the standard variables turn on, what they get where they are wrong, and what a batch is linked to."""

import sys
import threading
import time
from importlib import metadata
from typing import Any

import pytest
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from tests.support.builders import record
from worker.errors import UsageError
from worker.observability import opentelemetry_tracing
from worker.observability.opentelemetry_tracing import MOST_LINKS, OpenTelemetryTracing, links
from worker.observability.tracing import NO_TRACING, Tracing
from worker.observability.tracing_settings import exporter_names, make_tracing

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
COLLECTOR = "http://127.0.0.1:4318"


def made(**environment: str) -> Tracing:
    return make_tracing(environment, "order-placed", "group")


def refused(**environment: str) -> UsageError:
    with pytest.raises(UsageError) as error:
        made(**environment)
    assert "\n" not in str(error.value)
    assert error.value.exit_code == 2
    return error.value


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {ENDPOINT: ""},
        {"OTEL_SERVICE_NAME": "shop"},
        {"OTEL_TRACES_EXPORTER": "none", ENDPOINT: COLLECTOR},
        {"OTEL_SDK_DISABLED": "true", ENDPOINT: COLLECTOR},
        {"OTEL_SDK_DISABLED": "TRUE", "OTEL_TRACES_EXPORTER": "nonsense"},
    ],
)
def test_without_a_variable_that_asks_for_it_nothing_is_traced(environment: dict[str, str]):
    assert made(**environment) is NO_TRACING


@pytest.mark.parametrize(
    ("environment", "names"),
    [
        ({ENDPOINT: COLLECTOR}, ["otlp_proto_http"]),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": COLLECTOR}, ["otlp_proto_http"]),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, ["otlp_proto_http"]),
        ({"OTEL_TRACES_EXPORTER": "console, otlp"}, ["console", "otlp_proto_http"]),
        ({ENDPOINT: "collector:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, ["otlp_proto_grpc"]),
    ],
)
def test_the_exporters_are_those_that_the_variables_name(environment: dict[str, str], names: list[str]):
    assert exporter_names(environment) == names


def test_with_an_endpoint_spans_go_to_it_under_the_name_of_the_worker():
    traced = made(**{ENDPOINT: COLLECTOR})
    assert isinstance(traced, OpenTelemetryTracing)
    assert traced._provider.resource.attributes["service.name"] == "order-worker"
    (processor,) = traced._provider._active_span_processor._span_processors
    assert isinstance(processor, BatchSpanProcessor)
    traced.close()


def test_a_collector_that_is_away_does_not_hold_up_the_end(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(opentelemetry_tracing, "CLOSING_SECONDS", 0.1)
    traced, answers = made(**{ENDPOINT: COLLECTOR}), threading.Event()
    assert isinstance(traced, OpenTelemetryTracing)
    real = traced._provider.shutdown
    monkeypatch.setattr(traced._provider, "shutdown", lambda: answers.wait(20) and real())
    began = time.monotonic()
    traced.close()
    assert time.monotonic() - began < 5
    answers.set()


@pytest.mark.parametrize(
    "url", ["nonsense", "127.0.0.1:4318", "ftp://here", "http:///token", "http://[::1", "http://a:x"]
)
def test_an_endpoint_that_is_no_url_is_named_with_how_to_write_it(url: str):
    error = refused(**{ENDPOINT: url})
    assert ENDPOINT in str(error)
    assert url not in str(error), "it may hold a token"
    assert "http://host:4318" in str(error)


def test_an_exporter_or_protocol_that_nobody_knows_is_named():
    assert "no exporter jaeger is installed" in str(refused(OTEL_TRACES_EXPORTER="jaeger"))
    odd = refused(OTEL_TRACES_EXPORTER="otlp", OTEL_EXPORTER_OTLP_PROTOCOL="http/json")
    assert "OTEL_EXPORTER_OTLP_PROTOCOL=http/json" in str(odd)


def test_the_sdk_that_is_missing_is_named_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.resources", None)
    error = refused(**{ENDPOINT: COLLECTOR})
    assert f"{ENDPOINT} asks for traces, and OpenTelemetry is not installed" in str(error)
    assert "pip install opentelemetry-sdk opentelemetry-exporter-otlp-proto-http" in str(error)


def test_the_exporter_that_is_missing_is_named_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
):
    def nothing(**_wanted: Any) -> tuple[metadata.EntryPoint, ...]:
        return ()

    monkeypatch.setattr(metadata, "entry_points", nothing)
    assert "pip install opentelemetry-exporter-otlp-proto-http" in str(refused(**{ENDPOINT: COLLECTOR}))
    grpc = refused(**{ENDPOINT: COLLECTOR, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"})
    assert "pip install opentelemetry-exporter-otlp-proto-grpc" in str(grpc)


def traceparent(number: int, form: str = "00-{:032x}-{:016x}-01") -> tuple[tuple[str, bytes | None], ...]:
    return (("other", None), ("traceparent", form.format(number, number).encode()))


def test_a_batch_is_linked_to_each_trace_once_and_to_so_many_at_most():
    few = [record(b"", headers=traceparent(n)) for n in (1, 2, 1)]
    assert [link.context.trace_id for link in links([few, [record(b"", headers=traceparent(2))]])] == [1, 2]
    many = [record(b"", headers=traceparent(n)) for n in range(1, 3 * MOST_LINKS)]
    assert [link.context.trace_id for link in links([many])] == list(range(1, MOST_LINKS + 1))


@pytest.mark.parametrize(
    "headers",
    [
        (),
        (("traceparent", None),),
        (("traceparent", b"\xff\xfe"),),
        (("traceparent", b""),),
        traceparent(0),
        traceparent(5, "ff-{:032x}-{:016x}-01"),
        traceparent(5, "00-{:031x}-{:016x}-01"),
        traceparent(5, "00-{:032X}-{:016x}-01-more"),
    ],
)
def test_what_is_no_sound_traceparent_is_no_link(headers: tuple[tuple[str, bytes | None], ...]):
    assert links([[record(b"", headers=headers)]]) == []
