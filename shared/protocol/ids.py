"""Distinct types for the ids that cross Redis."""

from typing import NewType

JobId = NewType("JobId", str)
"""Id of a job: 128 random bits as 32 hex digits, so that clients can't guess ids."""
WorkerId = NewType("WorkerId", str)
"""Id of a worker: `host:pid:boot-uuid`. Never reused."""
ApiId = NewType("ApiId", str)
"""Id of one API process and of its reply stream. Never reused."""
InspectionId = NewType("InspectionId", str)
"""Id of one inspection of an adapter's files."""
AdapterVersion = NewType("AdapterVersion", str)
"""`name@digest12`, which identifies the exact weights of an adapter or of the base model."""

CHAT_PREFIX = "chatcmpl-"
"""Prefix added to a job id to form the id of a chat completion, as in OpenAI's API."""
COMPLETION_PREFIX = "cmpl-"
"""Prefix added to a job id to form the id of a completion, as in OpenAI's API."""


def job_id_of(given: str) -> JobId:
    """Return `given` without `CHAT_PREFIX` or `COMPLETION_PREFIX`."""
    return JobId(given.removeprefix(CHAT_PREFIX).removeprefix(COMPLETION_PREFIX))
