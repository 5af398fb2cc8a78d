"""Whether a request may become a job, decided before anything is queued."""

from dataclasses import dataclass

from api.redis_guard import redis_guard
from shared.errors import ErrorCode, JobError, JobFailed
from shared.protocol.ids import AdapterVersion
from shared.protocol.tools import ToolForm
from shared.store.registry import BaseModel, Registry


@dataclass(frozen=True, slots=True)
class Admission:
    """What an accepted request will run on."""

    version: AdapterVersion
    fingerprint: str
    max_model_len: int
    max_token_bytes: int
    tool_form: ToolForm | None


async def admit(registry: Registry, model: str) -> Admission:
    """Find what `model` names. There is no fallback: an adapter that is gone isn't the base model.

    Raises:
        JobFailed: nothing has this name, or it takes no requests for now.
        RedisUnavailable: the registry can't be read.
    """
    async with redis_guard():
        base, version = await registry.find(model)
    if base is None:
        message = "no worker has registered a model yet: start one, or try again soon"
        raise JobFailed(JobError(code=ErrorCode.UNAVAILABLE, message=message))
    if version is None:
        raise JobFailed(model_not_found(model))
    return Admission(
        version=version,
        fingerprint=_fingerprint(base, version),
        max_model_len=base.max_model_len,
        max_token_bytes=base.max_token_bytes,
        tool_form=base.tool_form,
    )


def _fingerprint(base: BaseModel, version: AdapterVersion) -> str:
    versions = [base.version] if version == base.version else [base.version, version]
    return "_".join(["fp", *(v.rpartition("@")[2] for v in versions)])


def model_not_found(name: str) -> JobError:
    """No base model or adapter is called `name`."""
    return JobError(
        code=ErrorCode.MODEL_NOT_FOUND,
        message=f"the model {name[:200]!r} doesn't exist; GET /v1/models lists those that do",
        param="model",
    )
