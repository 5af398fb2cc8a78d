"""Whether a request may become a job, decided before anything is queued."""

from dataclasses import dataclass

from api.redis_guard import redis_guard
from api.schema.chat import ChatCompletionRequest
from api.schema.generation import GenerationRequest
from shared.errors import ErrorCode, JobError, JobFailed
from shared.protocol import AdapterVersion
from shared.registry import BaseModel, Registry


@dataclass(frozen=True, slots=True)
class Admission:
    """What an accepted request will run on."""

    version: AdapterVersion
    max_model_len: int


async def admit(registry: Registry, request: GenerationRequest) -> Admission:
    """Find what `request.model` names, and check the limits that need no tokenizer.

    Raises:
        JobFailed: nothing has this name, or the answer can't fit into the context.
        RedisUnavailable: the registry can't be read.
    """
    async with redis_guard():
        base = await registry.base()
        version = await registry.resolve(request.model)
    if base is None:
        raise JobFailed(
            JobError(code=ErrorCode.UNAVAILABLE, message="no model is registered yet; try again")
        )
    if version is None:
        raise JobFailed(model_not_found(request.model))
    _check_length(request, base)
    return Admission(version, base.max_model_len)


def model_not_found(name: str) -> JobError:
    """No base model or adapter is called `name`."""
    return JobError(
        code=ErrorCode.MODEL_NOT_FOUND,
        message=f"the model {name[:200]!r} doesn't exist; GET /v1/models lists those that do",
        param="model",
    )


def _check_length(request: GenerationRequest, base: BaseModel) -> None:
    """The worker counts the prompt's tokens; a larger `max_tokens` fails whatever the prompt."""
    param, max_tokens = "max_tokens", request.max_tokens
    if isinstance(request, ChatCompletionRequest) and request.max_completion_tokens:
        param, max_tokens = "max_completion_tokens", request.max_completion_tokens
    if max_tokens is not None and max_tokens >= base.max_model_len:
        raise JobFailed(
            JobError(
                code=ErrorCode.CONTEXT_LENGTH_EXCEEDED,
                message=f"{param}: {max_tokens} tokens don't fit into the context of {base.name}, "
                f"{base.max_model_len} tokens for prompt and answer",
                param=param,
            )
        )
