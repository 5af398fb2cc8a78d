"""Sampling parameters reach vLLM's processes unchanged, and tokens that break them are noticed."""

import json
from typing import Any

import pytest
from engine_requests import make_request

from shared.errors import JobError
from worker.engine.request import ChoiceSampling, Request
from worker.engine.rules import NO_TOKEN_LEFT
from worker.engine_vllm.checks import reason_not_allowed
from worker.engine_vllm.row import extra_args_of, row_params


def request(**fields: Any) -> Request:
    sampling = ChoiceSampling(seed=2**63 - 1, **fields.pop("sampling", {}))
    return make_request(prompt=[1, 2, 3], sampling=sampling, **fields)


def test_a_plainly_greedy_request_is_left_to_vllm() -> None:
    assert extra_args_of(request(sampling={"temperature": 0.0, "logprobs": 3})) is None


@pytest.mark.parametrize(
    "sampling",
    [
        {"temperature": 0.7, "top_p": 0.9, "top_k": 40, "min_p": 0.1, "choice": 3},
        {"temperature": 0.0, "presence_penalty": 0.5, "repetition_penalty": 1.1},
        {"logit_bias": ((5, -100.0), (7, 2.5)), "allowed_token_ids": (5, 7)},
        {"bad_words": ((1, 2), (9,)), "min_tokens": 4},
    ],
)
def test_parameters_survive_a_message(sampling: dict[str, Any]) -> None:
    asked = request(sampling=sampling, output_ids=[4, 5], stop_ids=frozenset({2, 8}))
    received = row_params(json.loads(json.dumps(extra_args_of(asked))))
    assert received.sampling == asked.sampling
    assert received.num_shown == 2
    assert received.stop_ids == asked.stop_ids


def test_other_requests_have_no_parameters() -> None:
    assert row_params(None) is None
    assert row_params({"other": 1}) is None


@pytest.mark.parametrize(
    ("fields", "token", "reason"),
    [
        ({"sampling": {"allowed_token_ids": (5,)}}, 5, None),
        ({"sampling": {"allowed_token_ids": (5,)}}, 6, NO_TOKEN_LEFT),
        ({"sampling": {"bad_words": ((7,),)}}, 7, NO_TOKEN_LEFT),
        ({"sampling": {"bad_words": ((4, 7),)}, "output_ids": [4]}, 7, NO_TOKEN_LEFT),
        ({"sampling": {"bad_words": ((4, 7),)}, "output_ids": [5]}, 7, None),
        ({"sampling": {"bad_words": ((4, 7),)}}, 7, None),
        ({"sampling": {"min_tokens": 1}, "stop_ids": frozenset({2})}, 2, NO_TOKEN_LEFT),
        ({"sampling": {"min_tokens": 1}, "stop_ids": frozenset({2}), "output_ids": [4]}, 2, None),
    ],
)
def test_a_token_that_the_masks_forbid_means_that_none_was_left(
    fields: dict[str, Any], token: int, reason: JobError | None
) -> None:
    assert reason_not_allowed(request(**fields), token) == reason
