"""Validates requests to /generate. Pure."""

from collections.abc import Mapping
from typing import Any

from api.generate.known_fields import IGNORED, UNSUPPORTED, UNSUPPORTED_SAMPLING
from api.http.validation import validate
from api.requests.unsupported_fields import drop_unsupported
from api.schema.generate import GenerateRequest
from shared.errors import invalid_param


def adapter_of(raw: Mapping[str, Any]) -> str | None:
    """Return the adapter that a request names, or None. Invalid values are refused later."""
    name = raw.get("lora_path")
    if isinstance(name, list) and name:
        name = name[0]
    return name if isinstance(name, str) else None


def parsed(raw: Mapping[str, Any]) -> tuple[GenerateRequest, tuple[str, ...]]:
    """Return a validated request, and the names of its fields that are ignored.

    Raises:
        JobFailed: a field is invalid or unsupported. The error names the field.
    """
    ignored = tuple(name for name in IGNORED if raw.get(name) not in (None, False, "", [], {}))
    known = {name: value for name, value in raw.items() if name not in IGNORED}
    known = drop_unsupported(known, UNSUPPORTED)
    if isinstance(sampling := known.get("sampling_params"), dict | list):
        known["sampling_params"] = (
            [_supported(each, f"sampling_params[{i}].") for i, each in enumerate(sampling)]
            if isinstance(sampling, list)
            else _supported(sampling, "sampling_params.")
        )
    request = validate(GenerateRequest, known)
    _check(request)
    return request, ignored


def scores_prompt(request: GenerateRequest) -> bool:
    """Return whether the answer has log-probabilities of the prompt's tokens."""
    start = request.logprob_start_len
    return bool(request.return_logprob) and start is not None and start >= 0


def _supported(sampling: Any, path: str) -> Any:
    if not isinstance(sampling, dict):
        return sampling
    return drop_unsupported(sampling, UNSUPPORTED_SAMPLING, path=path)


def _check(request: GenerateRequest) -> None:
    """Refuse combinations of fields that contradict each other or aren't supported together."""
    if (request.text is None) == (request.input_ids is None):
        raise invalid_param("text", "or input_ids is required, and not both of them")
    if not request.return_logprob:
        return
    if scores_prompt(request) and request.stream:
        raise invalid_param("logprob_start_len", "isn't available with stream: true; send -1")
    has_more = "top_logprobs_num" if request.top_logprobs_num else ""
    if request.token_ids_logprob:
        if has_more:
            reason = "can't be combined with top_logprobs_num: send one of them"
            raise invalid_param("token_ids_logprob", reason)
        if scores_prompt(request):
            reason = "isn't available for the tokens of a prompt; send logprob_start_len: -1"
            raise invalid_param("token_ids_logprob", reason)
        has_more = "token_ids_logprob"
    if has_more and request.return_text_in_logprobs:
        raise invalid_param("return_text_in_logprobs", f"isn't available with {has_more}")
    _check_start(request)


def _check_start(request: GenerateRequest) -> None:
    shortest = min((len(ids) for ids in request.input_ids or ()), default=None)
    start = request.logprob_start_len or 0
    if shortest is not None and start > shortest:
        reason = f"is {start}, but a prompt has only {shortest} tokens"
        raise invalid_param("logprob_start_len", reason)
