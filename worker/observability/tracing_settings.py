"""Tracing, configured by OpenTelemetry's standard variables: off unless one of them names a destination.

    OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_EXPORTER_OTLP_TRACES_ENDPOINT     on, to this collector
    OTEL_TRACES_EXPORTER                                                otlp (the default then), console, none
    OTEL_SDK_DISABLED=true                                              off, whatever the others say

The SDK reads everything else (OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES, OTEL_TRACES_SAMPLER, OTEL_BSP_…).
"""

from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any, Final
from urllib.parse import urlsplit

from worker.errors import UsageError
from worker.observability.tracing import NO_TRACING, Tracing

_EXPORTER: Final = "OTEL_TRACES_EXPORTER"
_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS: Final = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_SERVICE: Final = "OTEL_SERVICE_NAME"
_RESOURCE: Final = "OTEL_RESOURCE_ATTRIBUTES"
_HTTP: Final = "http/protobuf"
_DISTRIBUTIONS: Final = {
    "otlp_proto_http": "opentelemetry-exporter-otlp-proto-http",
    "otlp_proto_grpc": "opentelemetry-exporter-otlp-proto-grpc",
    "console": "opentelemetry-sdk",
}
_PIP: Final = "pip install opentelemetry-sdk opentelemetry-exporter-otlp-proto-http"


def make_tracing(environment: Mapping[str, str], topic: str, group_id: str) -> Tracing:
    """The tracing that the variables configure; no connection is made yet.

    Raises UsageError if they ask for something that is not installed or does not exist.
    """
    names = exporter_names(environment)
    if not names:
        return NO_TRACING
    try:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor

        from worker.observability.opentelemetry_tracing import OpenTelemetryTracing
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("opentelemetry"):
            raise
        raise _missing(environment, _PIP) from None
    exporters = [_exporter(name, environment) for name in names]
    try:
        # The SDK's own default is "unknown_service".
        is_named = environment.get(_SERVICE) or "service.name" in environment.get(_RESOURCE, "")
        resource = Resource.create({} if is_named else {"service.name": "order-worker"})
        provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        for name, exporter in zip(names, exporters, strict=True):
            processor = SimpleSpanProcessor if name == "console" else BatchSpanProcessor
            provider.add_span_processor(processor(exporter()))
    except (ValueError, TypeError) as error:
        raise UsageError(f"tracing is configured by OTEL_… variables that do not fit: {error}") from None
    return OpenTelemetryTracing(provider, topic, group_id)


def exporter_names(environment: Mapping[str, str]) -> Sequence[str]:
    """Of the exporters that are asked for, as their packages register them. Empty: tracing is off."""
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return ()
    endpoint = next((name for name in _ENDPOINTS if environment.get(name)), None)
    asked = environment.get(_EXPORTER) or ("otlp" if endpoint else "none")
    names = [name.strip() for name in asked.split(",") if name.strip()]
    if names == ["none"]:
        return ()
    registered = [_registered(name, environment) for name in dict.fromkeys(names)]
    if "otlp_proto_http" in registered and endpoint:
        _require_url(endpoint, environment[endpoint])
    return registered


def _registered(name: str, environment: Mapping[str, str]) -> str:
    if name != "otlp":
        return name
    variable = next((name for name in _PROTOCOLS if environment.get(name)), None)
    protocol = environment[variable] if variable else _HTTP
    if protocol == "grpc":
        return "otlp_proto_grpc"
    if protocol != _HTTP:
        raise UsageError(f"{variable}={protocol}: no such protocol here", f"set it to {_HTTP} or grpc")
    return "otlp_proto_http"


def _require_url(variable: str, value: str) -> None:
    # The exporter would say so again and again, to the log, and every span would be lost.
    try:
        parts = urlsplit(value)
        host, _port = parts.hostname, parts.port  # one that is no number raises
        is_url = parts.scheme in ("http", "https") and bool(host)
    except ValueError:
        is_url = False
    if not is_url:
        raise UsageError(f"{variable} is no URL", "write it as http://host:4318")


def _exporter(name: str, environment: Mapping[str, str]) -> Any:
    """The class that the exporter's package registers by this name."""
    found = next(iter(metadata.entry_points(group="opentelemetry_traces_exporter", name=name)), None)
    if found is None:
        package = _DISTRIBUTIONS.get(name)
        if package is None:
            raise UsageError(
                f"{_EXPORTER}={environment[_EXPORTER]}: no exporter {name} is installed",
                "set it to otlp, console or none",
            )
        raise _missing(environment, f"pip install {package}")
    try:
        return found.load()
    except ModuleNotFoundError:
        raise _missing(environment, _PIP) from None


def _missing(environment: Mapping[str, str], install: str) -> UsageError:
    by = next(name for name in (_EXPORTER, *_ENDPOINTS) if environment.get(name))
    return UsageError(
        f"{by} asks for traces, and OpenTelemetry is not installed", f"run `{install}`, or unset {by}"
    )
