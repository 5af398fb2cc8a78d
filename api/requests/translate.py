"""Translates requests to /v1/chat/completions and /v1/completions into jobs. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import orjson

from api.http.validation import validate
from api.requests.aliases import without_aliases
from api.requests.chat_messages import template_messages, tool_use
from api.requests.constraints import check_constraint, constraint_of
from api.requests.images import check_copies, read_images
from api.requests.prompt_length import check_length
from api.requests.template_options import echoed, prompt_end, template_kwargs
from api.requests.unsupported_fields import CHAT, COMPLETIONS, MESSAGE, drop_unsupported
from api.schema.chat import ChatCompletionRequest
from api.schema.completions import CompletionRequest
from api.schema.generation import GenerationRequest
from shared.errors import invalid_param
from shared.protocol.ids import AdapterVersion, ApiId, JobId
from shared.protocol.images import text_of
from shared.protocol.jobs import Endpoint, Job, SamplingParams
from shared.protocol.tools import CALL_ENDS, ToolForm, ToolUse
from shared.reasoning_form import ReasoningForm

CHARS_PER_TOKEN = 4
ASSUMED_MAX_TOKENS = 256
"""Estimated number of tokens of an answer if the request has no `max_tokens`."""
COMPLETION_MAX_TOKENS = 16
"""Default of `max_tokens` for /v1/completions, as in OpenAI's API."""
_AS_SENT = tuple(
    field.name
    for field in fields(SamplingParams)
    if field.name in GenerationRequest.model_fields
    and field.name not in ("seed", "top_k", "max_tokens", "prompt_logprobs")
)
"""Sampling parameters that a request contains as fields with the same name and meaning."""
ADAPTERS_MAY_SET = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
"""Request fields for which an adapter's generation_config.json can set the default."""
PRIORITY_OF_TIER = {"priority": 10, "flex": -10}
"""Priority of the jobs of each service tier. Other tiers have priority 0."""
MAX_ANSWERS = 128
"""Maximum number of answers to one completion request: `n` times the number of prompts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """Properties of a job that the body of its request doesn't determine."""

    id: JobId
    tenant: str
    version: AdapterVersion
    fingerprint: str
    max_model_len: int
    reply_to: ApiId
    created_s: int
    deadline_ms: int
    random_seed: int
    """Seed of the job if the client sends no seed."""
    tool_form: ToolForm | None = None
    """Syntax of the model's tool calls; None if its chat template doesn't support tools."""
    reasoning: ReasoningForm | None = None
    """Form of the reasoning in the model's answers; None if they have no reasoning part."""
    embedding_size: int = 0
    """Number of values of an embedding of the model; 0 if its workers compute no embeddings."""
    takes_images: bool = False
    """Whether the base model reads images."""
    max_token_bytes: int = 0
    """Maximum number of prompt bytes that one token covers; 0 if unknown."""


def parse_chat(raw: Mapping[str, Any]) -> ChatCompletionRequest:
    """Validate the body of a chat request and return the request.

    Raises:
        JobFailed: a field is invalid or unsupported. The error names the field.
    """
    with without_aliases(raw) as body:
        return _parsed_chat(body)


def _parsed_chat(raw: Mapping[str, Any]) -> ChatCompletionRequest:
    supported = drop_unsupported(raw, CHAT)
    if isinstance(supported.get("messages"), list):
        supported["messages"] = [
            drop_unsupported(message, MESSAGE, path=f"messages[{i}].")
            if isinstance(message, dict)
            else message
            for i, message in enumerate(supported["messages"])
        ]
    request = validate(ChatCompletionRequest, supported)
    _check_stream_fields(request)
    if request.top_logprobs and not request.logprobs:
        raise invalid_param("top_logprobs", "is only allowed with logprobs: true")
    if request.logprob_token_ids and not request.logprobs:
        raise invalid_param("logprob_token_ids", "is only allowed with logprobs: true")
    check_constraint(request)
    return request


def parse_completion(raw: Mapping[str, Any]) -> CompletionRequest:
    """Validate the body of a completion request and return the request.

    Raises:
        JobFailed: a field is invalid or unsupported. The error names the field.
    """
    with without_aliases(raw) as body:
        return _parsed_completion(body)


def _parsed_completion(raw: Mapping[str, Any]) -> CompletionRequest:
    neutral = {**COMPLETIONS, "best_of": (1, raw.get("n", 1))}
    request = validate(CompletionRequest, drop_unsupported(raw, neutral))
    _check_stream_fields(request)
    if request.max_tokens == 0 and not request.max_completion_tokens and not request.echo:
        raise invalid_param(
            "max_tokens",
            "can only be 0 with echo: true, which returns the prompt; send echo, or at least 1",
        )
    if request.logprob_token_ids and request.logprobs is None:
        raise invalid_param("logprob_token_ids", "is only allowed with logprobs")
    check_constraint(request)
    num_answers = len(request.prompt) * (request.n or 1)
    if num_answers > MAX_ANSWERS:
        raise invalid_param(
            "prompt",
            f"and n ask for {num_answers} answers; one request can have at most {MAX_ANSWERS}",
        )
    return request


def chat_job(request: ChatCompletionRequest, admission: Admission) -> Job:
    """Return the job that answers a chat request.

    Raises:
        JobFailed: the messages or the tools are inconsistent, an image is invalid, the model
            doesn't support tools or images, or the messages can't fit into the model's context.
    """
    messages, tools = template_messages(request.messages), tool_use(request, admission.tool_form)
    images = read_images(request.messages, takes_images=admission.takes_images)
    if images and request.truncate_prompt_tokens is not None:
        raise invalid_param("truncate_prompt_tokens", "isn't available with images; leave it out")
    check_copies(images, request.n or 1)
    num_chars = sum(len(text_of(message["content"])) for message in messages)
    num_chars += len(orjson.dumps(tools.tools)) if tools else 0
    max_tokens = request.max_completion_tokens or request.max_tokens
    sampling = _stop_after_call(_sampling(request, max_tokens, admission.random_seed), tools)
    if request.logprobs:
        sampling = replace(sampling, logprobs=request.top_logprobs or 0)
    num_tokens = num_chars // CHARS_PER_TOKEN + sum(image.num_tokens for image in images)
    job = _job(request, admission, Endpoint.CHAT, sampling, num_tokens)
    job = replace(
        job,
        messages=messages,
        images=tuple(image.data for image in images),
        tools=tools,
        template_kwargs=template_kwargs(request),
        prompt_end=prompt_end(request),
        reasoning=None if request.separate_reasoning is False else admission.reasoning,
        hides_reasoning=request.include_reasoning is False,
        echoed=echoed(request),
    )
    return fitting(job, admission)


def completion_job(
    request: CompletionRequest,
    admission: Admission,
    *,
    default_max_tokens: int | None = COMPLETION_MAX_TOKENS,
) -> Job:
    """Return the job that answers a completion request.

    Without `max_tokens`, an answer has at most `default_max_tokens` tokens. If this default is
    None, only the context length limits the answer.

    Raises:
        JobFailed: a prompt can't fit into the model's context.
    """
    max_tokens = request.max_completion_tokens or _or(request.max_tokens, default_max_tokens)
    sampling = _sampling(request, max_tokens, admission.random_seed)
    sampling = replace(sampling, logprobs=request.logprobs)
    prompts = tuple(p if isinstance(p, str) else tuple(p) for p in request.prompt)
    num_tokens = [len(p) // (CHARS_PER_TOKEN if isinstance(p, str) else 1) for p in prompts]
    job = _job(request, admission, Endpoint.COMPLETIONS, sampling, *num_tokens)
    return fitting(replace(job, prompts=prompts, echo=bool(request.echo)), admission)


def _stop_after_call(sampling: SamplingParams, tools: ToolUse | None) -> SamplingParams:
    """Return `sampling`, with an added stop string if the answer must end after one tool call."""
    if tools is None or tools.is_parallel or tools.form not in CALL_ENDS:
        return sampling
    return replace(sampling, stop=(*sampling.stop, CALL_ENDS[tools.form]))


def fitting(job: Job, admission: Admission) -> Job:
    """Return the job if its prompts can fit into the context, and raise `JobFailed` otherwise."""
    check_length(
        job, max_model_len=admission.max_model_len, max_token_bytes=admission.max_token_bytes
    )
    return job


def _job(
    request: GenerationRequest,
    admission: Admission,
    endpoint: Endpoint,
    sampling: SamplingParams,
    *num_prompt_tokens: int,
) -> Job:
    """Build the job without its prompts. `num_prompt_tokens` has an estimate for each prompt."""
    sampling = _truncating(sampling, admission.max_model_len)
    return Job(
        id=admission.id,
        endpoint=endpoint,
        model=request.model,
        version=admission.version,
        fingerprint=admission.fingerprint,
        sampling=sampling,
        created_s=admission.created_s,
        deadline_ms=admission.deadline_ms,
        cost=_cost(num_prompt_tokens, sampling, admission.max_model_len),
        reply_to=admission.reply_to,
        tenant=admission.tenant,
        priority=PRIORITY_OF_TIER.get(request.service_tier or "", 0),
        service_tier=request.service_tier,
        include_usage=bool(request.stream_options and request.stream_options.include_usage),
        returns_token_ids=bool(request.return_token_ids),
        continuous_usage=_counts_continuously(request),
    )


def _sampling(
    request: GenerationRequest, max_tokens: int | None, random_seed: int
) -> SamplingParams:
    constraint = constraint_of(request)
    if max_tokens is not None and (request.min_tokens or 0) > max_tokens:
        raise invalid_param(
            "min_tokens", f"is {request.min_tokens}, which is more than max_tokens, {max_tokens}"
        )
    seed = random_seed if request.seed is None else request.seed
    return SamplingParams(
        **_as_sent(request),
        seed=seed % 2**63,  # clients may send negative seeds, which random generators don't accept
        top_k=max(0, _or(request.top_k, 0)),
        max_tokens=max_tokens,
        includes_stop=bool(request.include_stop_str_in_output),
        keeps_special_tokens=request.skip_special_tokens is False,
        reports_ids=bool(request.return_token_ids) or _counts_continuously(request),
        tokens_as_ids=bool(request.return_tokens_as_token_ids),
        prompt_logprobs=None if request.stream else request.prompt_logprobs,
        **(constraint.sampling if constraint else {}),
        left_out=tuple(name for name in ADAPTERS_MAY_SET if getattr(request, name) is None),
    )


def _as_sent(request: GenerationRequest) -> dict[str, Any]:
    """Return the values of those `_AS_SENT` parameters that the client has sent."""
    sent = ((name, getattr(request, name)) for name in _AS_SENT)
    return {name: _immutable(value) for name, value in sent if value is not None}


def _immutable(value: Any) -> Any:
    if isinstance(value, dict):
        return tuple(value.items())
    return tuple(value) if isinstance(value, list) else value


def _counts_continuously(request: GenerationRequest) -> bool:
    """Return whether every chunk has token counts. As in vLLM, `include_usage` must be set, too."""
    options = request.stream_options
    return bool(options and options.include_usage and options.continuous_usage_stats)


def _truncating(sampling: SamplingParams, max_model_len: int) -> SamplingParams:
    """Replace a truncation of -1 with the number of tokens that leaves room for `max_tokens`."""
    if sampling.truncate_prompt_tokens == 0:
        raise invalid_param("truncate_prompt_tokens", "can't be 0, because a prompt needs a token")
    if sampling.truncate_prompt_tokens != -1:
        return sampling
    return replace(
        sampling, truncate_prompt_tokens=max(1, max_model_len - (sampling.max_tokens or 1))
    )


def _cost(num_prompt_tokens: Sequence[int], sampling: SamplingParams, max_model_len: int) -> int:
    """Estimate the number of tokens of all prompts and answers.

    For a prompt and one of its answers, the estimate is at most `max_model_len` tokens.
    """
    total = 0
    for estimate in num_prompt_tokens:
        prompt = min(estimate, max_model_len - 1, sampling.truncate_prompt_tokens or estimate)
        answer = min(_or(sampling.max_tokens, ASSUMED_MAX_TOKENS), max_model_len - prompt)
        total += prompt + sampling.n * answer
    return max(1, total)


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value


def _check_stream_fields(request: GenerationRequest) -> None:
    if request.stream_options is not None and not request.stream:
        raise invalid_param("stream_options", "is only allowed with stream: true")
    if request.prompt_logprobs and request.stream:
        raise invalid_param("prompt_logprobs", "isn't available with stream: true")
