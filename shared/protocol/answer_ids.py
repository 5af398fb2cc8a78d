"""The ids of answers: one of OpenAI's prefixes, then the id of the job."""

from shared.protocol.ids import JobId

CHAT_PREFIX = "chatcmpl-"
COMPLETION_PREFIX = "cmpl-"


def job_id_of(given: str) -> JobId:
    """The job that users name by its own id or by its answer's."""
    return JobId(given.removeprefix(CHAT_PREFIX).removeprefix(COMPLETION_PREFIX))
