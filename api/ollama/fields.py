"""Translates the fields that /api/chat and /api/generate have in common. Pure."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from api.ollama import options
from api.ollama.options import sampling_fields, unused_options
from api.requests.template_options import thinking_switch
from api.requests.translate import Admission
from api.requests.unsupported_fields import drop_unsupported
from api.schema.ollama import OllamaRequest
from shared.errors import ErrorCode, failed

NAMES = {
    r"messages\[(\d+)\]\.tool_calls": r"messages[\1].tool_calls",
    r"messages\[(\d+)\]\.role": r"messages[\1].role",
    r"messages\[(\d+)\]\.name": r"messages[\1].tool_name",
    r"messages\[(\d+)\]\.content\b.*": r"messages[\1].content",
    r"(response_format|structured_outputs)\b.*": "format",
    r"max(_completion)?_tokens\b": "options.num_predict",
    r"repetition_penalty\b": "options.repeat_penalty",
    rf"({'|'.join((*options.SAME, 'seed', 'stop'))})\b": r"options.\1",
    r"logprobs\b": "top_logprobs",
    r"reasoning_effort\b": "think",
}
"""For each regular expression of a path in an OpenAI request, the path in the Ollama request."""


def with_options(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return the body `raw` without the options that aren't supported.

    Raises:
        JobFailed: an unsupported option has a value that isn't neutral.
    """
    given = raw.get("options")
    if not isinstance(given, dict):
        return dict(raw)
    return {**raw, "options": drop_unsupported(given, options.UNSUPPORTED, path="options.")}


def chat_fields(request: OllamaRequest) -> dict[str, Any]:
    """Return the fields of a chat request that aren't part of its conversation."""
    return {
        "model": request.model,
        "stream": request.stream is not False,
        **sampling_fields(request.options, "max_completion_tokens"),
        **_response_format(request.format),
        **_thinking(request.think),
        "logprobs": request.logprobs,
        "top_logprobs": request.top_logprobs if request.logprobs else None,
    }


def unused_fields(request: OllamaRequest) -> Iterator[str]:
    """Yield the paths of the known fields that have no effect."""
    if request.keep_alive is not None:
        yield "keep_alive"
    for name in ("truncate", "shift"):
        if getattr(request, name):
            yield name
    if request.top_logprobs and not request.logprobs:
        yield "top_logprobs"
    yield from unused_options(request.options)


def thinking_check(request: OllamaRequest) -> Callable[[Admission], None]:
    """Return a check that refuses a request for thinking if the model can't think.

    The error message is Ollama's: clients recognise it, and send the request again without `think`.
    """

    def check(admission: Admission) -> None:
        if request.think and admission.reasoning is None:
            message = f'"{request.model[:200]}" does not support thinking'
            raise failed(ErrorCode.UNSUPPORTED_PARAMETER, message, "think")

    return check


def is_constrained(value: Any) -> bool:
    """Return whether a value of `format` constrains the answer."""
    return value not in (None, "")


def _response_format(value: Any) -> dict[str, Any]:
    if not is_constrained(value):
        return {}
    if value == "json":
        return {"response_format": {"type": "json_object"}}
    named = {"name": "format", "schema": value}
    return {"response_format": {"type": "json_schema", "json_schema": named}}


def _thinking(think: bool | str | None) -> dict[str, Any]:
    """Return the fields that control thinking. As in Ollama, models think by default."""
    thinks = think is not False
    effort = {"reasoning_effort": think} if isinstance(think, str) else {}
    return {
        "chat_template_kwargs": thinking_switch(thinks),
        "include_reasoning": thinks,
        **effort,
    }
