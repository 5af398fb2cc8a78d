"""Files of tenants."""

from enum import StrEnum


class Purpose(StrEnum):
    """What a file is for."""

    BATCH = "batch"
    """Requests of a batch, one JSON object per line."""
    BATCH_OUTPUT = "batch_output"
    """Answers or errors of a batch, one JSON object per line."""
