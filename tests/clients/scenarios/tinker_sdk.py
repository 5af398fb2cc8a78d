"""Scenarios of Tinker's client: samples and log-probabilities of the base model and an adapter."""

import os
from typing import Any

import pytest
import tinker
from tinker import types
from weather_chat import BASE, CALLER

GREETING_IDS: list[int] = [int(token) for token in os.environ["GREETING_IDS"].split(",")]
"""Tokens of the adapter's answer to a chat, and the token that ends it."""
PROMPT = types.ModelInput.from_ints([int(token) for token in os.environ["HELLO_IDS"].split(",")])
GREEDY = types.SamplingParams(max_tokens=100, temperature=0.0)


@pytest.fixture(scope="module")
def service() -> Any:
    return tinker.ServiceClient()


def test_an_adapter_answers_as_trained_with_its_end_token(service: Any) -> None:
    client = service.create_sampling_client(model_path=f"tinker://{CALLER}").result()
    assert client.get_base_model() == BASE
    response = client.sample(prompt=PROMPT, num_samples=2, sampling_params=GREEDY).result()
    for sequence in response.sequences:
        assert list(sequence.tokens) == GREETING_IDS
        assert sequence.stop_reason == "stop"
        assert len(sequence.logprobs) == len(GREETING_IDS)
        assert all(logprob > -0.5 for logprob in sequence.logprobs)
    assert len({sequence.sequence_id for sequence in response.sequences}) == 2


def test_the_base_model_is_sampled_up_to_the_limit_with_the_likeliest_tokens(service: Any) -> None:
    client = service.create_sampling_client(base_model=BASE).result()
    params = types.SamplingParams(max_tokens=5, seed=3, stop=[])
    first, again = (
        client.sample(PROMPT, 1, params, topk_sample_logprobs=3).result().sequences[0]
        for _ in range(2)
    )
    assert list(first.tokens) == list(again.tokens)
    assert (len(first.tokens), first.stop_reason) == (5, "length")
    for token, logprob, top in zip(first.tokens, first.logprobs, first.topk_logprobs, strict=True):
        assert len(top) == 3
        assert top[0][1] >= top[1][1] >= top[2][1]
        assert dict(top).get(token, logprob) == pytest.approx(logprob)


def test_a_stop_token_ends_a_sample(service: Any) -> None:
    client = service.create_sampling_client(model_path=f"tinker://{CALLER}").result()
    params = types.SamplingParams(max_tokens=100, temperature=0.0, stop=[GREETING_IDS[1]])
    (sequence,) = client.sample(PROMPT, 1, params).result().sequences
    assert list(sequence.tokens) == GREETING_IDS[:2]


def test_log_probabilities_of_a_prompt_are_those_of_its_sample(service: Any) -> None:
    client = service.create_sampling_client(model_path=f"tinker://{CALLER}").result()
    (sampled,) = client.sample(PROMPT, 1, GREEDY).result().sequences
    whole = types.ModelInput.from_ints([*PROMPT.to_ints(), *GREETING_IDS])
    logprobs = client.compute_logprobs(whole).result()
    assert (len(logprobs), logprobs[0]) == (whole.length, None)
    answer = logprobs[-len(GREETING_IDS) :]
    assert answer == pytest.approx(list(sampled.logprobs), abs=1e-3)
    last = client.compute_logprobs(whole, prompt_logprobs_last_n=2).result()
    assert last[:-2] == [None] * (whole.length - 2)
    assert last[-2:] == pytest.approx(answer[-2:], abs=1e-4)
    scored = client.sample(
        whole, 1, GREEDY, include_prompt_logprobs=True, topk_prompt_logprobs=2
    ).result()
    assert scored.topk_prompt_logprobs[0] is None
    assert scored.topk_prompt_logprobs[-1][0][0] == GREETING_IDS[-1]
    assert all(len(top) == 2 for top in scored.topk_prompt_logprobs[1:])


def test_a_pickled_client_samples_the_same(service: Any) -> None:
    client = service.create_sampling_client(model_path=f"tinker://{CALLER}").result()
    other = tinker.SamplingClient.from_sampler_handle(client.get_sampler_handle())
    (sequence,) = other.sample(PROMPT, 1, GREEDY).result().sequences
    assert list(sequence.tokens) == GREETING_IDS


def test_errors_say_what_is_wrong(service: Any) -> None:
    with pytest.raises(tinker.NotFoundError, match="absent"):
        service.create_sampling_client(base_model="absent").result()
    with pytest.raises(tinker.BadRequestError, match="doesn't train"):
        service.create_lora_training_client(base_model=BASE).result()
    client = service.create_sampling_client(base_model=BASE).result()
    with pytest.raises(tinker.BadRequestError, match="temperature"):
        client.sample(PROMPT, 1, types.SamplingParams(max_tokens=5, temperature=-1)).result()
    far = types.ModelInput.from_ints([10**6])
    with pytest.raises(tinker.RequestFailedError, match="outside the vocabulary"):
        client.sample(far, 1, GREEDY).result()


def test_the_models_are_listed() -> None:
    found = tinker.RestClient().get_server_capabilities().result().supported_models
    assert {BASE, CALLER} <= {model.model_name for model in found}
