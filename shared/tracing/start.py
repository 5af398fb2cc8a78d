"""Starts tracing if the settings ask for it. OpenTelemetry is imported only then."""

from typing import TYPE_CHECKING

from shared.errors import SettingsError

if TYPE_CHECKING:
    from shared.tracing.tracer import Tracer


def start_tracing(endpoint: str, *, service: str, pool: str) -> "Tracer | None":
    """Return a tracer that exports to an OTLP endpoint, or None if `endpoint` is empty.

    Args:
        endpoint: base URL of the collector, to which `/v1/traces` is appended.
        service: name of this process in traces, unless OTEL_SERVICE_NAME is set.
        pool: name of the pool.

    Raises:
        SettingsError: the packages of OpenTelemetry aren't installed.
    """
    if not endpoint:
        return None
    try:
        from shared.tracing.tracer import Tracer
    except ImportError as error:
        raise SettingsError(
            f"--otlp-endpoint: traces need the extra `otel` ({error}); install it with "
            "pip install 'lorikeet-serve[otel]'"
        ) from None
    return Tracer(endpoint, service=service, pool=pool)
