"""Translates requests of Tinker's sampling client into completions in the background. Pure."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from api.http.validation import validate
from api.requests.translate import Admission, completion_job
from api.requests.unsupported_fields import NeutralValues, drop_unsupported
from api.schema.completions import CompletionRequest
from api.schema.tinker import SampleParams, SampleRequest
from api.tinker.samplers import parse_sampler
from shared.errors import invalid_param
from shared.protocol.jobs import Job

UNSUPPORTED: NeutralValues = {
    "base_model": (),
    "model_path": (),
    "prompt_alt_tokens_k": (0,),
    "record_stability_info": (False,),
    "target_prompt_logprobs": (),
}
LAST_N, TOP_PROMPT, TOP_SAMPLE = "last_n", "top_prompt", "top_sample"
"""Keys of `Job.request`: the number of the prompt's last tokens to score, and the numbers of most
likely tokens to report at each position of the prompt and of the samples."""


def parse_sample(raw: Mapping[str, Any]) -> SampleRequest:
    """Validate the body of a request for samples and return the request.

    Raises:
        JobFailed: a field is invalid or unsupported. The error names the field.
    """
    request = validate(SampleRequest, drop_unsupported(raw, UNSUPPORTED))
    if request.prompt_logprobs_last_n is not None and not request.prompt_logprobs:
        raise invalid_param("prompt_logprobs_last_n", "is only allowed with prompt_logprobs")
    return request


def completion_of(request: SampleRequest) -> dict[str, Any]:
    """Return the body of the completion that answers a request.

    Raises:
        JobFailed: the sampler doesn't exist.
    """
    sampling = request.sampling_params
    return {
        "model": parse_sampler(request.sampling_session_id, "sampling_session_id").model,
        "prompt": [token for chunk in request.prompt.chunks for token in chunk.tokens],
        "n": request.num_samples,
        "seed": sampling.seed,
        "temperature": sampling.temperature,
        "top_k": sampling.top_k,
        "top_p": sampling.top_p,
        **_stop(sampling),
        **({} if sampling.max_tokens is None else {"max_tokens": sampling.max_tokens}),
        "return_token_ids": True,
        "return_tokens_as_token_ids": True,
        "background": True,
    }


def sample_job(request: SampleRequest, body: CompletionRequest, admission: Admission) -> Job:
    """Return the job of a request, whose completion is `body`.

    Raises:
        JobFailed: the prompt can't fit into the model's context.
    """
    job = completion_job(body, admission)
    scores = request.topk_prompt_logprobs if request.prompt_logprobs else None
    sampling = replace(
        job.sampling,
        logprobs=request.topk_sample_logprobs,
        prompt_logprobs=request.topk_prompt_logprobs or scores,
        # Without a limit, a sample may fill the context.
        max_tokens=request.sampling_params.max_tokens,
    )
    repeated = {
        LAST_N: request.prompt_logprobs_last_n,
        TOP_PROMPT: request.topk_prompt_logprobs,
        TOP_SAMPLE: request.topk_sample_logprobs,
    }
    return replace(job, sampling=sampling, request=repeated)


def _stop(sampling: SampleParams) -> dict[str, Any]:
    """Return the fields of a completion that end its answers.

    If `stop` is an empty list, an end-of-sequence token doesn't end the answer.
    """
    if sampling.stop == []:
        return {"ignore_eos": True}
    if isinstance(sampling.stop, list) and isinstance(sampling.stop[0], int):
        return {"stop_token_ids": sampling.stop}
    return {"stop": sampling.stop}
