"""Computes the scores of prompts from log-probabilities."""

import math

import orjson

from worker.engine.request import StepOutput
from worker.text.interface import Scored


def score_text(scored: Scored, output: StepOutput) -> str:
    """Return a prompt's score as JSON: a list with the log-probability of each label.

    Without labels, the list has one value: the sum of the log-probabilities of the prompt's scored
    tokens. `output` is the only output of the prompt's request.
    """
    if scored.labels:
        assert output.logprobs is not None
        logprobs = dict(output.logprobs.top)
        return orjson.dumps([logprobs[label] for label in scored.labels]).decode()
    assert output.prompt_logprobs is not None
    # The list lacks the first token of the prompt.
    tokens = output.prompt_logprobs[scored.num_unscored - 1 :]
    return orjson.dumps([math.fsum(token.logprob for token in tokens)]).decode()
