"""From a checked request to the response that runs it."""

import secrets
import time

from api.admission import admit
from api.answer import Answer
from api.context import Context
from api.requests.translate import Ticket
from api.requests.unused_fields import warning
from api.schema.generation import GenerationRequest
from shared.protocol.ids import JobId
from shared.protocol.jobs import Job


async def issue_ticket(context: Context, tenant: str, request: GenerationRequest) -> Ticket:
    """Admit the tenant's `request`, and give it what makes it a job.

    Raises:
        JobFailed: it isn't admitted.
        RedisUnavailable: the registry can't be read.
    """
    admission = await admit(context.registry, request.model)
    return Ticket(
        id=JobId(secrets.token_hex(16)),
        tenant=tenant,
        version=admission.version,
        fingerprint=admission.fingerprint,
        max_model_len=admission.max_model_len,
        max_token_bytes=admission.max_token_bytes,
        reply_to=context.api_id,
        created_s=int(time.time()),
        deadline_ms=int(context.settings.deadline_s * 1000),
        random_seed=secrets.randbits(63),
        tool_form=admission.tool_form,
    )


def answer(context: Context, request: GenerationRequest, job: Job) -> Answer:
    """The response to `request`, which has become `job`."""
    options = request.stream_options
    return Answer(
        context,
        job,
        stream=bool(request.stream),
        include_usage=options is not None and bool(options.include_usage),
        warning=warning(request),
    )
