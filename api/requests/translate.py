"""From an OpenAI request to a `Job`. Pure: no network, no clock."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson

from api.http.body import validate
from api.requests.chat_messages import template_messages, tool_use
from api.requests.prompt_length import check_length
from api.schema import unserved_fields
from api.schema.chat import ChatCompletionRequest
from api.schema.completions import CompletionRequest
from api.schema.generation import GenerationRequest
from shared.errors import ErrorCode, JobError, JobFailed
from shared.protocol.ids import AdapterVersion, ApiId, JobId
from shared.protocol.jobs import Endpoint, Job, SamplingParams
from shared.protocol.tools import HERMES_CLOSE, ToolForm, ToolUse

CHARS_PER_TOKEN = 4
ASSUMED_MAX_TOKENS = 256
"""What an answer without `max_tokens` is taken to cost."""
COMPLETION_MAX_TOKENS = 16
"""OpenAI's default for /v1/completions."""
ADAPTERS_MAY_SET = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
"""Fields for which an adapter's generation_config.json may have values of its own."""
MAX_ANSWERS = 128
"""Of one request: prompts times n."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """What the front end adds to a request when it accepts it."""

    id: JobId
    tenant: str
    version: AdapterVersion
    fingerprint: str
    max_model_len: int
    reply_to: ApiId
    created_s: int
    deadline_ms: int
    random_seed: int
    """Used when the client sends no seed."""
    tool_form: ToolForm | None = None
    """How the model writes tool calls; None: it has none."""
    max_token_bytes: int = 0
    """The most bytes of a prompt that one token can stand for; 0: that isn't known."""


def parse_chat(raw: Mapping[str, Any]) -> ChatCompletionRequest:
    """The checked request.

    Raises:
        JobFailed: a field is wrong, unknown or not served; the error names it.
    """
    served = unserved_fields.without_neutral(raw, unserved_fields.CHAT)
    if isinstance(served.get("messages"), list):
        served["messages"] = [
            unserved_fields.without_neutral(
                message, unserved_fields.MESSAGE, path=f"messages[{i}]."
            )
            if isinstance(message, dict)
            else message
            for i, message in enumerate(served["messages"])
        ]
    request = validate(ChatCompletionRequest, served)
    _check_stream_options(request)
    if None not in (request.max_tokens, request.max_completion_tokens):
        raise _invalid("max_tokens", "and max_completion_tokens are the same: send one")
    if request.top_logprobs and not request.logprobs:
        raise _invalid("top_logprobs", "is only allowed with logprobs: true")
    _check_form(request)
    return request


def parse_completion(raw: Mapping[str, Any]) -> CompletionRequest:
    """The checked request.

    Raises:
        JobFailed: a field is wrong, unknown or not served; the error names it.
    """
    request = validate(
        CompletionRequest, unserved_fields.without_neutral(raw, unserved_fields.COMPLETIONS)
    )
    _check_stream_options(request)
    num_answers = len(request.prompt) * (request.n or 1)
    if num_answers > MAX_ANSWERS:
        raise _invalid(
            "prompt", f"and n ask for {num_answers} answers, over the {MAX_ANSWERS} of one request"
        )
    return request


def chat_job(request: ChatCompletionRequest, ticket: Ticket) -> Job:
    """The job that answers `request`.

    Raises:
        JobFailed: messages or tools don't make sense together, the model can't call tools, or the
            messages can't fit into its context.
    """
    messages, tools = template_messages(request.messages), tool_use(request, ticket.tool_form)
    num_chars = sum(len(message["content"]) for message in messages)
    num_chars += len(orjson.dumps(tools.tools)) if tools else 0
    max_tokens = request.max_completion_tokens or request.max_tokens
    sampling = _ended_by_tools(_sampling(request, max_tokens, ticket.random_seed), tools)
    if request.logprobs:
        sampling = replace(sampling, logprobs=request.top_logprobs or 0)
    sampling = replace(sampling, json_schema=_schema(request))
    num_tokens = num_chars // CHARS_PER_TOKEN
    job = _job(request, ticket, Endpoint.CHAT, sampling, num_tokens)
    return _fitting(replace(job, messages=messages, tools=tools), ticket)


def _ended_by_tools(sampling: SamplingParams, tools: ToolUse | None) -> SamplingParams:
    """`sampling`, made to end an answer after its only call."""
    if tools is None or tools.is_parallel or tools.form is not ToolForm.HERMES:
        return sampling
    return replace(sampling, stop=(*sampling.stop, HERMES_CLOSE))


def completion_job(request: CompletionRequest, ticket: Ticket) -> Job:
    """The job that answers `request`.

    Raises:
        JobFailed: a prompt can't fit into the model's context.
    """
    sampling = _sampling(request, request.max_tokens or COMPLETION_MAX_TOKENS, ticket.random_seed)
    sampling = replace(sampling, logprobs=request.logprobs)
    prompts = tuple(p if isinstance(p, str) else tuple(p) for p in request.prompt)
    num_tokens = [len(p) // (CHARS_PER_TOKEN if isinstance(p, str) else 1) for p in prompts]
    job = _job(request, ticket, Endpoint.COMPLETIONS, sampling, *num_tokens)
    return _fitting(replace(job, prompts=prompts, echo=bool(request.echo)), ticket)


def _fitting(job: Job, ticket: Ticket) -> Job:
    """The job itself, if its prompts can fit into the context."""
    check_length(job, max_model_len=ticket.max_model_len, max_token_bytes=ticket.max_token_bytes)
    return job


def _job(
    request: GenerationRequest,
    ticket: Ticket,
    endpoint: Endpoint,
    sampling: SamplingParams,
    *num_prompt_tokens: int,
) -> Job:
    """The job without its prompts, whose lengths are estimated in `num_prompt_tokens`."""
    return Job(
        id=ticket.id,
        endpoint=endpoint,
        model=request.model,
        version=ticket.version,
        fingerprint=ticket.fingerprint,
        sampling=sampling,
        created_s=ticket.created_s,
        deadline_ms=ticket.deadline_ms,
        cost=_cost(num_prompt_tokens, sampling, ticket.max_model_len),
        reply_to=ticket.reply_to,
        tenant=ticket.tenant,
    )


def _sampling(
    request: GenerationRequest, max_tokens: int | None, random_seed: int
) -> SamplingParams:
    seed = random_seed if request.seed is None else request.seed
    if max_tokens is not None and (request.min_tokens or 0) > max_tokens:
        raise _invalid(
            "min_tokens", f"is {request.min_tokens}, over the {max_tokens} of max_tokens"
        )
    return SamplingParams(
        seed=seed % 2**63,  # negative ones are allowed to clients, but not to random generators
        temperature=_or(request.temperature, 1.0),
        top_p=_or(request.top_p, 1.0),
        top_k=max(0, _or(request.top_k, 0)),
        min_p=_or(request.min_p, 0.0),
        presence_penalty=_or(request.presence_penalty, 0.0),
        frequency_penalty=_or(request.frequency_penalty, 0.0),
        repetition_penalty=_or(request.repetition_penalty, 1.0),
        logit_bias=tuple(request.logit_bias.items()),
        min_tokens=_or(request.min_tokens, 0),
        max_tokens=max_tokens,
        stop=tuple(request.stop),
        n=_or(request.n, 1),
        ignore_eos=bool(request.ignore_eos),
        left_out=tuple(name for name in ADAPTERS_MAY_SET if getattr(request, name) is None),
    )


def _cost(num_prompt_tokens: Sequence[int], sampling: SamplingParams, max_model_len: int) -> int:
    """Estimated tokens of prompts and answers; a prompt with one answer fits into the context."""
    total = 0
    for estimate in num_prompt_tokens:
        prompt = min(estimate, max_model_len - 1)
        answer = min(sampling.max_tokens or ASSUMED_MAX_TOKENS, max_model_len - prompt)
        total += prompt + sampling.n * answer
    return max(1, total)


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value


def _schema(request: ChatCompletionRequest) -> str | None:
    return request.response_format.schema_text if request.response_format else None


def _check_form(request: ChatCompletionRequest) -> None:
    """An answer whose form is enforced ends where that ends; JSON is no tool call."""
    if _schema(request) is not None:
        form = "a JSON response_format"
        if request.tools and request.tool_choice != "none":
            raise _invalid("tools", f"can't be called with {form}: send one of both")
    elif request.tool_choice not in (None, "none", "auto"):
        form = "a tool_choice that requires a call"
    else:
        return
    if request.ignore_eos:
        raise _invalid("ignore_eos", f"can't be true with {form}")
    if request.min_tokens:
        raise _invalid("min_tokens", f"can't be combined with {form}")


def _check_stream_options(request: GenerationRequest) -> None:
    if request.stream_options is not None and not request.stream:
        raise _invalid("stream_options", "is only allowed with stream: true")


def _invalid(param: str, reason: str) -> JobFailed:
    return JobFailed(
        JobError(code=ErrorCode.INVALID_VALUE, message=f"{param} {reason}", param=param)
    )
