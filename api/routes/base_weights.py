"""Routes for trainers that change base weights or GPU memory. They refuse all requests."""

from fastapi import APIRouter, Request

from api.adapters.management import MAY_MANAGE, adapter_errors
from api.http.guards import Work, guarded
from shared.errors import ErrorCode, failed
from shared.protocol.access.rights import Scope

router = APIRouter(tags=["adapters"], dependencies=[MAY_MANAGE])
_SEND_LORA = (
    "train a LoRA adapter and send it with POST /load_lora_adapter, "
    "/load_lora_adapter_from_tensors or /v1/adapters"
)
_BASE = f"the weights of the base model don't change while a pool serves it; {_SEND_LORA}"
_TRANSFER = f"weights aren't received over NCCL or IPC; {_SEND_LORA}"
_VERSION = (
    "versions are digests of weights and can't be set; each answer and each response to a load "
    "has its weight_version"
)
_MEMORY = (
    "a pool keeps its GPU memory; run the trainer on other GPUs, and switch off the release of "
    "memory: verl's rollout.free_cache_engine, slime's and miles' --colocate, AReaL's offload"
)
REASONS = {
    "/update_weights_from_disk": _BASE,
    "/update_weights_from_tensor": _BASE,
    "/update_weights_from_distributed": _BASE,
    "/update_weights_from_ipc": _BASE,
    "/begin_weight_update": _BASE,
    "/end_weight_update": _BASE,
    "/init_weights_update_group": _TRANSFER,
    "/load_lora_adapter_from_distributed": _TRANSFER,
    "/update_weight_version": _VERSION,
    "/release_memory_occupation": _MEMORY,
    "/resume_memory_occupation": _MEMORY,
    # vLLM
    "/init_weight_transfer_engine": _TRANSFER,
    "/start_weight_update": _BASE,
    "/update_weights": _BASE,
    "/finish_weight_update": _BASE,
}
"""For each path, the reason for the refusal and what to do instead. SGLang's paths come first."""


@guarded(Work.CONSTANT, Scope.ADAPTERS)
async def refuse(request: Request) -> None:
    """Refuse to change the base model or the memory of a pool. The error says what to do instead.

    Raises:
        JobFailed: always.
    """
    raise failed(ErrorCode.UNSUPPORTED_PARAMETER, REASONS[request.scope["route"].path])


for _path in REASONS:
    router.post(_path, summary="Not supported", responses=adapter_errors(400, 403))(refuse)
