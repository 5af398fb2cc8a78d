"""Translates the engine's requests to vLLM's, and vLLM's outputs back."""

import time
from collections.abc import Iterable
from typing import Any

from vllm import SamplingParams
from vllm.lora.request import LoRARequest
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine import EngineCoreRequest

from worker.engine.logprobs import LEAST
from worker.engine.request import ChoiceSampling, Request, TokenLogprobs
from worker.engine_vllm.image_reader import features
from worker.engine_vllm.row_params import extra_args_of


def core_request(
    request: Request, *, lora: LoRARequest | None, cache_salt: str | None
) -> EngineCoreRequest:
    """Return vLLM's form of a request.

    Requests share blocks of the KV cache only if their `cache_salt` is equal. Output tokens of
    earlier tries are passed to vLLM as the end of the prompt. The sampler still counts them as
    output.
    """
    return EngineCoreRequest(
        request_id=request.id,
        prompt_token_ids=[*request.prompt_ids, *request.output_ids],
        mm_features=features(request.images, request.tenant) if request.images else None,
        sampling_params=_sampling_params(request),
        pooling_params=None,
        arrival_time=time.time(),
        lora_request=lora,
        cache_salt=cache_salt,
        data_parallel_rank=None,
        external_req_id=request.id,
    )


def _sampling_params(request: Request) -> SamplingParams:
    sampling = request.sampling
    params = SamplingParams(
        temperature=0.0,  # the sampler draws the tokens of all other requests
        # If `max_tokens` is 0, one token is sampled for the log-probabilities, but not output.
        max_tokens=max(1, request.max_tokens - len(request.output_ids)),
        stop_token_ids=sorted(request.stop_ids),
        ignore_eos=True,
        logprobs=sampling.logprobs,
        prompt_logprobs=_num_prompt_logprobs(sampling) if request.scores_prompt else None,
        detokenize=False,
        output_kind=RequestOutputKind.DELTA,
        extra_args=extra_args_of(request),
    )
    # Otherwise blocks of other requests are reused, and vLLM has no hidden states for the rest.
    params.skip_reading_prefix_cache = request.scores_prompt
    return params


def _num_prompt_logprobs(sampling: ChoiceSampling) -> int:
    return max(sampling.logprobs or 0, sampling.prompt_logprobs or 0)


def token_logprobs(found: Any, request: Request) -> TokenLogprobs:
    """Return the log-probabilities of an output token.

    `found` has vLLM's arrays for this position. They begin with the output token, and continue with
    the likeliest tokens, of which there may be more than the request asks for.
    """
    ids, values = found.logprob_token_ids[0].tolist(), _finite(found.logprobs[0].tolist())
    num_top = request.sampling.logprobs or 0
    return TokenLogprobs(values[0], tuple(zip(ids[1:], values[1:], strict=True))[:num_top])


def prompt_logprobs(found: Any, request: Request) -> tuple[TokenLogprobs, ...]:
    """Return the log-probabilities of the prompt tokens from the second on.

    `found` has vLLM's arrays with one row for each of these tokens.
    """
    num_top = _num_prompt_logprobs(request.sampling)
    has_ranks = request.sampling.prompt_logprobs is not None
    rows = zip(
        found.logprob_token_ids.tolist(),
        map(_finite, found.logprobs.tolist()),
        found.selected_token_ranks.tolist(),
        strict=True,
    )
    return tuple(
        TokenLogprobs(
            values[0],
            tuple(zip(ids[1:], values[1:], strict=True))[:num_top],
            rank if has_ranks else None,
        )
        for ids, values, rank in rows
    )


def _finite(values: Iterable[float]) -> list[float]:
    return [max(value, LEAST) for value in values]
