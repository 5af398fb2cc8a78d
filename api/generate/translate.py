"""Translates requests to /generate into completion requests. Pure."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from api.generate.answer_form import AnswerForm, wire_of
from api.generate.parse import parsed, scores_prompt
from api.requests.unknown_fields import unknown_fields
from api.requests.viewed import ViewedRequest
from api.schema.generate import GenerateRequest
from shared.protocol.jobs import Endpoint, Job, SamplingParams, View

_SAME = (
    *("temperature", "top_p", "top_k", "min_p", "frequency_penalty", "presence_penalty"),
    *("repetition_penalty", "stop", "stop_token_ids", "skip_special_tokens"),
    *("ignore_eos", "n"),
)
"""Sampling parameters that have the same name in a completion request."""
_NAMES = {
    "max_new_tokens": "max_tokens",
    "min_new_tokens": "min_tokens",
    "no_stop_trim": "include_stop_str_in_output",
    "sampling_seed": "seed",
    "json_schema": "guided_json",
    "regex": "guided_regex",
    "ebnf": "guided_grammar",
}
"""For each sampling parameter whose name differs in a completion request, its name there."""
_PARAMS = {
    "model": "lora_path",
    "logprobs": "return_logprob",
    "prompt_logprobs": "logprob_start_len",
    "logprob_token_ids": "token_ids_logprob",
    **{theirs: f"sampling_params.{ours}" for ours, theirs in _NAMES.items()},
    **{name: f"sampling_params.{name}" for name in (*_SAME, "logit_bias")},
}
"""For each field of the completion request, its path in the original request to /generate."""


def viewed_generation(raw: Mapping[str, Any], base: str) -> ViewedRequest:
    """Convert a request into the form of a completion request. `base` names the base model.

    Raises:
        JobFailed: a field is invalid or unsupported. The error names the field.
    """
    request, ignored = parsed(raw)
    sampling = request.sampling
    field = "text" if request.input_ids is None else "input_ids"
    completion = {
        "model": request.lora_path or base,
        "prompt": request.text or request.input_ids,
        "stream": request.stream,
        "return_token_ids": True,
        "echo": sampling.max_new_tokens == 0,  # only with it, a completion may have no tokens
        "return_tokens_as_token_ids": not request.return_text_in_logprobs,
        **({"logprobs": 0} if request.return_logprob else {}),
        **{name: getattr(sampling, name) for name in _SAME},
        **{theirs: getattr(sampling, ours) for ours, theirs in _NAMES.items()},
    }
    if sampling.logit_bias:  # in JSON, all keys are strings
        completion["logit_bias"] = {str(key): bias for key, bias in sampling.logit_bias.items()}
    if request.return_logprob and request.token_ids_logprob:
        completion["logprob_token_ids"] = request.token_ids_logprob
    names = {"prompt": field, **_PARAMS}
    return ViewedRequest(
        body=completion,
        endpoint=Endpoint.COMPLETIONS,
        view=View.GENERATE,
        request=wire_of(_form(raw, request)),
        names={rf"{name}\b": path for name, path in names.items()},
        ignored=ignored,
        unknown=tuple(unknown_fields(request)),
        refine=partial(_refined, request),
    )


def _refined(request: GenerateRequest, job: Job) -> Job:
    """Return `job` with the request's name and the numbers of log-probabilities it asks for."""
    sampling = _scoring(job.sampling, request)
    return replace(job, sampling=sampling, rid=request.rid or "", echo=False)


def _scoring(sampling: SamplingParams, request: GenerateRequest) -> SamplingParams:
    """Return `sampling` with the numbers of log-probabilities that `request` asks for.

    A completion request can't have them, because it limits these numbers to 5.
    """
    if not request.return_logprob:
        return sampling
    num_top = request.top_logprobs_num or 0
    sampling = replace(sampling, logprobs=num_top)
    return replace(sampling, prompt_logprobs=num_top) if scores_prompt(request) else sampling


def _form(raw: Mapping[str, Any], request: GenerateRequest) -> AnswerForm:
    sampling = request.sampling
    sent = raw.get("text") if request.input_ids is None else (raw.get("input_ids") or [0])[0]
    has_logprobs = bool(request.return_logprob)
    return AnswerForm(
        rid=request.rid,
        is_list=isinstance(sent, list) or (sampling.n or 1) > 1,
        start=request.logprob_start_len if scores_prompt(request) else None,
        num_top=(request.top_logprobs_num or 0) if has_logprobs else 0,
        listed=tuple(request.token_ids_logprob or ()) if has_logprobs else (),
        has_texts=bool(request.return_text_in_logprobs),
        has_prompt_ids=bool(request.return_prompt_token_ids),
        interval=sampling.stream_interval or 1,
    )
