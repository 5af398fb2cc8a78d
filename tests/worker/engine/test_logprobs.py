"""Log-probabilities are those of the sampled tokens, also where rows are sampled twice."""

from typing import Any

import pytest
import torch
from counted_operations import Counts, OperationCounter
from engine_requests import make_request

from worker.engine.model_runner import sample_and_read
from worker.engine.request import ChoiceSampling, Request, TokenLogprobs
from worker.kernels.transfer import Pending

VOCAB = 3000


def request(name: str, **sampling: Any) -> Request:
    return make_request(name, sampling=ChoiceSampling(seed=len(name), **sampling))


def flat_and_peaked() -> torch.Tensor:
    logits = torch.randn(3, VOCAB, generator=torch.Generator().manual_seed(0)) * 0.01
    logits[1, 7] = 40.0
    return logits


def check(row: torch.Tensor, token: int, got: TokenLogprobs, num_top: int) -> None:
    expected = row.log_softmax(-1)
    assert got.logprob == pytest.approx(float(expected[token]), abs=1e-5)
    assert [value for _, value in got.top] == pytest.approx(
        expected.topk(num_top).values.tolist(), abs=1e-5
    )


def test_rows_that_are_sampled_again_report_their_final_token() -> None:
    logits = flat_and_peaked()
    rows = [request("flat", top_p=0.9, logprobs=2), request("peaked", top_p=0.9)]
    rows.append(request("both", top_p=0.95, logprobs=3, temperature=1.5))
    tokens, logprobs = sample_and_read(logits, rows)
    assert tokens[1] == 7
    assert logprobs.keys() == {0, 2}
    check(logits[0], tokens[0], logprobs[0], 2)
    check(logits[2], tokens[2], logprobs[2], 3)


def test_listed_tokens_come_after_the_sampled_one_and_each_once() -> None:
    logits = flat_and_peaked()
    rows = [
        request("a", top_k=1, logprobs=1, logprob_token_ids=(5, 9, 5)),
        request("b", temperature=0.0, logprobs=1, logprob_token_ids=(9, 7)),
        request("c", temperature=0.0, logprobs=1),
    ]
    tokens, logprobs = sample_and_read(logits, rows)
    listed = [[token for token, _ in logprobs[row].top] for row in range(3)]
    assert listed == [[tokens[0], 5, 9], [7, 9], [tokens[2]]]
    expected = logits[0].log_softmax(-1)
    for token, value in logprobs[0].top:
        assert value == pytest.approx(float(expected[token]), abs=1e-5)


def test_tokens_logprobs_and_other_values_are_read_at_once() -> None:
    logits, counts = 9 * flat_and_peaked() * 100, Counts()
    rows = [request(name, top_p=0.9, logprobs=4) for name in "abc"]
    other = Pending([logits[:, 0]], lambda arrays: arrays[0].tolist())
    with torch.inference_mode(), OperationCounter() as counter, counter.into(counts):
        sample_and_read(logits, rows, other)
    assert counts.reads == {"cpu": 1}
    assert other.value() == pytest.approx(logits[:, 0].tolist())


def test_values_are_read_even_if_nothing_is_sampled() -> None:
    other = Pending([torch.tensor([3.0])], lambda arrays: float(arrays[0][0]))
    assert sample_and_read(torch.empty(0, VOCAB), [], other) == ([], {})
    assert other.value() == 3.0
