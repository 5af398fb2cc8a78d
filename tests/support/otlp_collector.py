"""A collector of OpenTelemetry traces, which keeps the spans that processes send to it."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from threaded_server import LocalServer, QuietHandler, running

WITHIN_S = 60.0


@dataclass(frozen=True)
class Received:
    """One span in the form that tests compare."""

    name: str
    kind: int
    trace: str
    id: str
    parent: str
    start_ns: int
    end_ns: int
    status: int
    attributes: dict[str, Any] = field(hash=False)
    events: dict[str, dict[str, Any]] = field(hash=False)
    """Attributes of each event, by its name, and its time under the name `at_ns`."""
    resource: dict[str, Any] = field(hash=False)


class Collector(LocalServer):
    """Collector that listens on a free port."""

    def __init__(self) -> None:
        super().__init__(_Handler)
        self.spans: list[Received] = []
        self.bodies: list[bytes] = []
        self.headers: list[dict[str, str]] = []

    def named(self, name: str) -> list[Received]:
        return [span for span in self.spans if span.name == name]

    def wait_for(self, is_complete: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + WITHIN_S
        while not (value := is_complete()):
            assert time.monotonic() < deadline, f"only {[s.name for s in self.spans]} arrived"
            time.sleep(0.02)
        return value


class _Handler(QuietHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.read_body()
        assert self.path == "/v1/traces"
        request = ExportTraceServiceRequest.FromString(body)
        self.server.bodies.append(body)
        self.server.headers.append({k.lower(): v for k, v in self.headers.items()})
        self.server.spans.extend(_received(request))
        self.reply(200)


@contextmanager
def collecting() -> Iterator[Collector]:
    with running(Collector()) as collector:
        yield collector


def _received(request: ExportTraceServiceRequest) -> Iterator[Received]:
    for of_process in request.resource_spans:
        resource = _values(of_process.resource.attributes)
        for scope in of_process.scope_spans:
            for span in scope.spans:
                yield Received(
                    name=span.name,
                    kind=span.kind,
                    trace=span.trace_id.hex(),
                    id=span.span_id.hex(),
                    parent=span.parent_span_id.hex(),
                    start_ns=span.start_time_unix_nano,
                    end_ns=span.end_time_unix_nano,
                    status=span.status.code,
                    attributes=_values(span.attributes),
                    events={
                        event.name: {**_values(event.attributes), "at_ns": event.time_unix_nano}
                        for event in span.events
                    },
                    resource=resource,
                )


def _values(attributes: Any) -> dict[str, Any]:
    return {each.key: _value(each.value) for each in attributes}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(each) for each in value.array_value.values]
    return getattr(value, kind)
