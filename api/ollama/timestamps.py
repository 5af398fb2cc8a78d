"""Times as Ollama writes them."""

from datetime import UTC, datetime


def timestamp(unix_s: float) -> str:
    """Return a Unix time as text, in the format of RFC 3339."""
    return datetime.fromtimestamp(unix_s, UTC).isoformat().replace("+00:00", "Z")
