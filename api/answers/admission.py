"""Decides whether a request may become a job, before anything is queued."""

import math
import secrets
import time

from api.access.model_rights import ModelNotFound, check_model
from api.answers.parts import Intake
from api.pools.registered_base import NoBase
from api.requests.translate import Admission
from shared.protocol.access.rights import Access
from shared.protocol.adapters import fingerprint_of
from shared.protocol.ids import JobId
from shared.store.adapters.registry import Found


async def admit(intake: Intake, access: Access, model: str) -> Admission:
    """Return the `Admission` of a request that needs no queued job, such as a tokenization.

    The function reads the registry and not the cache, because no later step would notice that a
    cached model is outdated. An unknown adapter is loaded if it exists at `--adapter-source`.

    Raises:
        JobFailed: as in `admission_to` and `check_model`, or the adapter is quarantined.
        RedisUnavailable: the registry can't be read.
    """
    await check_model(intake.registry, access, model)

    async def admission() -> Admission:
        found = await intake.registry.find(model)
        return admission_to(found, intake, access.tenant, model)

    return await intake.on_demand.with_adapter(access, model, admission)


def admission_to(
    found: Found, intake: Intake, tenant: str, model: str, *, deadline_s: float | None = None
) -> Admission:
    """Return the `Admission` of a request. `model` names the base model or an adapter.

    `found` is the registry's entry for `model`. `deadline_s` is the client's time limit in seconds;
    None selects the server's limit. If `model` names an adapter that isn't loaded, the request is
    refused: the base model never serves it instead.

    Raises:
        JobFailed: no model that accepts requests has this name, or no worker has registered a base
            model.
    """
    base, version = found.base, found.version
    if base is None:
        raise NoBase
    if version is None:
        raise ModelNotFound(model)
    return Admission(
        id=JobId(secrets.token_hex(16)),
        tenant=tenant,
        version=version,
        fingerprint=fingerprint_of(base, version),
        max_model_len=base.max_model_len,
        max_token_bytes=base.max_token_bytes,
        embedding_size=base.embedding_size,
        takes_images=base.takes_images,
        tool_form=found.tool_form,
        reasoning=found.reasoning,
        reply_to=intake.api_id,
        created_s=int(time.time()),
        deadline_ms=math.ceil((deadline_s or intake.settings.deadline_s) * 1000),
        random_seed=secrets.randbits(63),
    )
