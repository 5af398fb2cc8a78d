"""Types of the ids in Redis, which type checkers keep apart, and forms of ids in the APIs."""

import re
from typing import NewType

JobId = NewType("JobId", str)
"""Id of a job: 128 random bits as 32 hex digits, so that clients can't guess ids."""
WorkerId = NewType("WorkerId", str)
"""Id of a worker: `host:pid:boot-uuid`. Never reused."""
ApiId = NewType("ApiId", str)
"""Id of one API process (front end) and of its reply stream. Never reused."""
InspectionId = NewType("InspectionId", str)
"""Id of one inspection of an adapter's files."""
UploadId = NewType("UploadId", str)
"""Id of the files of one uploaded adapter: 128 random bits as 32 hex digits."""
CallId = NewType("CallId", str)
"""Id of one call for tokenization: 128 random bits as 32 hex digits."""
FileId = NewType("FileId", str)
"""Id of a file: `file-` and 32 hex digits."""
BatchId = NewType("BatchId", str)
"""Id of a batch: `batch_` and 32 hex digits."""
AdapterVersion = NewType("AdapterVersion", str)
"""`name@digest12`: identifies the exact weights of an adapter or of the base model."""

CHAT_PREFIX = "chatcmpl-"
"""Prefix added to a job id to form the id of a chat completion, as in OpenAI's API."""
COMPLETION_PREFIX = "cmpl-"
"""Prefix added to a job id to form the id of a completion, as in OpenAI's API."""
RESPONSE_PREFIX = "resp_"
"""Prefix added to a job id to form the id of a response, as in OpenAI's API."""
MESSAGE_PREFIX = "msg_"
"""Prefix added to a job id to form the id of a message, as in Anthropic's API."""
EMBEDDING_PREFIX = "embd-"
"""Prefix added to a job id to form the id of a response with embeddings, as in vLLM."""
SCORE_PREFIX = "score-"
"""Prefix added to a job id to form the id of a response with scores, as in vLLM."""
PREFIXES = (
    *(CHAT_PREFIX, COMPLETION_PREFIX, EMBEDDING_PREFIX, SCORE_PREFIX),
    *(RESPONSE_PREFIX, MESSAGE_PREFIX),
)

_WORKER = re.compile(r".*:([0-9a-f]{4})[0-9a-f]{28}")


def worker_name(wid: str) -> str:
    """Return the short name of a worker: the first four digits of its random part.

    No two workers of a pool have the same name (`register.lua`). If an id has another form, the
    name is the whole id.
    """
    found = _WORKER.fullmatch(wid)
    return found[1] if found else wid


def name_of(version: AdapterVersion) -> str:
    """Return the name of the adapter or base model that `version` belongs to."""
    return version.rpartition("@")[0]


def job_id_of(given: str) -> JobId:
    """Return the id of a job. `given` is this id, or the id of the job's answer in an API."""
    for prefix in PREFIXES:
        given = given.removeprefix(prefix)
    return JobId(given)
