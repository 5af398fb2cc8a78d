"""Why the queue takes a job no more, although its request was admitted."""

from shared.errors import ErrorCode, JobError
from shared.protocol.jobs import Job


def unloaded(job: Job) -> JobError:
    """Its adapter was unloaded after the request was admitted."""
    message = f"the model {job.model!r} was unloaded; GET /v1/models lists what is served"
    return JobError(code=ErrorCode.MODEL_NOT_FOUND, message=message, param="model")


def quarantined(job: Job) -> JobError:
    """Its adapter was quarantined after the request was admitted."""
    message = f"adapter {job.version} is quarantined: several of its jobs killed their workers"
    return JobError(code=ErrorCode.ADAPTER_UNAVAILABLE, message=message, param="model")


def too_large(job: Job, most: int) -> JobError:
    """No live worker holds more than `most` tokens.

    Only several answers at once are that large: each of them fits the model's context.
    """
    message = (
        f"the prompts and {job.num_choices} answers may take {job.cost} tokens, and no worker "
        f"holds more than {most} at a time; ask for fewer answers, or for shorter ones with "
        "max_tokens"
    )
    param = "prompt" if len(job.prompts) > 1 else "n"
    return JobError(code=ErrorCode.CONTEXT_LENGTH_EXCEEDED, message=message, param=param)
