"""Translates requests for embeddings into jobs. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from api.http.validation import validate
from api.requests.translate import CHARS_PER_TOKEN, Admission, fitting
from api.requests.unsupported_fields import NeutralValues, drop_unsupported
from api.schema.embeddings import EmbeddingRequest
from shared.errors import invalid_param, invalid_value
from shared.protocol.embeddings import EmbeddingParams, Pooling
from shared.protocol.jobs import Endpoint, Job, SamplingParams

MAX_ANSWER_BYTES = 16 << 20
"""Maximum size of one request's embeddings together, as float32. Redis keeps them as base64."""
RESERVED_TOKENS = 4096
"""Maximum cost of all inputs of a job together, in tokens. A longer single input costs more.

An input leaves the KV cache after a few steps, and generations start before inputs. A job therefore
needs less of the KV cache than the sum of its inputs. When the job ends, its tenant is charged for
all tokens.
"""
UNSUPPORTED: NeutralValues = {
    "add_special_tokens": (True,),
    "embed_dtype": ("float32",),
    "endianness": ("native", "little"),
    "messages": (),
    "chat_template": (),
    "padding": ("do_not_pad",),
    "truncation_side": ("left",),
    "use_activation": (True,),
}


def parse_embedding(raw: Mapping[str, Any]) -> EmbeddingRequest:
    """Validate the body of a request for embeddings and return the request.

    Raises:
        JobFailed: a field is invalid or unsupported. The error names the field.
    """
    return validate(EmbeddingRequest, drop_unsupported(raw, UNSUPPORTED))


def embedding_job(request: EmbeddingRequest, admission: Admission) -> Job:
    """Return the job that computes the embeddings of a request.

    Raises:
        JobFailed: the pool computes no embeddings, or none of the requested size; an input can't
            fit into the context; or the answer would be too large.
    """
    _check_size(request, admission.embedding_size)
    limit = _limit(request.truncate_prompt_tokens, admission.max_model_len)
    prompts = tuple(p if isinstance(p, str) else tuple(p) for p in request.input)
    job = Job(
        id=admission.id,
        endpoint=Endpoint.EMBEDDINGS,
        model=request.model,
        version=admission.version,
        fingerprint=admission.fingerprint,
        sampling=SamplingParams(seed=0, truncate_prompt_tokens=limit),
        created_s=admission.created_s,
        deadline_ms=admission.deadline_ms,
        cost=_cost(prompts, min(limit or admission.max_model_len, admission.max_model_len)),
        reply_to=admission.reply_to,
        tenant=admission.tenant,
        prompts=prompts,
        embedding=EmbeddingParams(
            pooling=Pooling(request.pooling or Pooling.LAST),
            normalize=request.normalize is not False,
        ),
        encodes_base64=request.encoding_format == "base64",
    )
    return fitting(job, admission)


def _check_size(request: EmbeddingRequest, size: int) -> None:
    if size == 0:
        raise invalid_value("the workers of this pool compute no embeddings", "model")
    if request.dimensions not in (None, size):
        raise invalid_param(
            "dimensions",
            f"can only be {size}, the size of this model's embeddings, not {request.dimensions}: "
            "the model isn't trained for shorter ones",
        )
    most = MAX_ANSWER_BYTES // (4 * size)
    if len(request.input) > most:
        raise invalid_param(
            "input",
            f"has {len(request.input)} inputs, but at most {most} embeddings of this model fit "
            "into one response; send several requests",
        )


def _limit(truncate_prompt_tokens: int | None, max_model_len: int) -> int | None:
    """Return how many tokens of each input are used at most. None means all tokens."""
    if truncate_prompt_tokens == 0:
        raise invalid_param("truncate_prompt_tokens", "can't be 0, because an input needs a token")
    return max_model_len if truncate_prompt_tokens == -1 else truncate_prompt_tokens


def _cost(prompts: Sequence[str | tuple[int, ...]], max_tokens: int) -> int:
    estimates = [len(p) // (CHARS_PER_TOKEN if isinstance(p, str) else 1) for p in prompts]
    return estimated_cost(estimates, max_tokens)


def estimated_cost(estimates: Sequence[int], max_tokens: int) -> int:
    """Estimate the number of tokens that a job needs in the KV cache at one time.

    `estimates` has the estimated number of tokens of each prompt. Each prompt counts as at most
    `max_tokens` tokens.
    """
    bounded = [min(estimate, max_tokens) for estimate in estimates]
    return max(1, *bounded, min(sum(bounded), RESERVED_TOKENS))
