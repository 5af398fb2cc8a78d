"""Starts tracing if the settings ask for it. OpenTelemetry is imported only then."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from shared.errors import SettingsError

if TYPE_CHECKING:
    from shared.tracing.tracer import Tracer


@contextmanager
def tracing(endpoint: str, *, service: str, pool: str) -> Iterator["Tracer | None"]:
    """Provide a tracer that exports to an OTLP endpoint, or None if `endpoint` is empty.

    The endpoint is the base URL of the collector, without `/v1/traces`. `service` is the name of
    this process in traces, unless OTEL_SERVICE_NAME is set. At the end of the block, the ended
    spans that haven't been exported are exported.

    Raises:
        SettingsError: the packages of OpenTelemetry aren't installed.
    """
    if not endpoint:
        yield None
        return
    try:
        from shared.tracing.tracer import Tracer
    except ImportError as error:
        raise SettingsError(
            f"--otlp-endpoint: traces need OpenTelemetry, which isn't installed ({error}); "
            "install it with pip install opentelemetry-sdk opentelemetry-exporter-otlp-proto-http"
        ) from None
    tracer = Tracer(endpoint, service=service, pool=pool)
    try:
        yield tracer
    finally:
        tracer.close()
