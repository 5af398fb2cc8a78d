"""Log-probabilities of an engine, for the base model and an adapter in one batch."""

from dataclasses import dataclass, field

import torch

from ops.lab.generate.models.tiny_config import VOCAB_SIZE
from shared.protocol.ids import AdapterVersion
from worker.engine.interface import AnyEngine
from worker.engine.request import ChoiceSampling, Request, RequestId

_PROMPT_LENGTH, _NUM_TOKENS = 29, 5


@dataclass(slots=True)
class Scored:
    """Tokens of a prompt and its answer, and the log-probability of each token except the first."""

    token_ids: list[int]
    logprobs: list[float] = field(default_factory=list)


def scores(engine: AnyEngine, version: AdapterVersion | None) -> tuple[Scored, Scored]:
    """Answer one prompt with the base model, and another prompt with an adapter.

    Return both prompts and answers with their log-probabilities. `version`, the adapter's version,
    must be resident. If it is None, the base model answers both prompts.
    """
    answers: dict[RequestId, Scored] = {}
    for seed, adapter in enumerate((None, version)):
        request = _request(seed, adapter)
        answers[request.id] = Scored(list(request.prompt_ids))
        engine.add(request)
    _run(engine, answers)
    base, tuned = answers.values()
    return base, tuned


def _request(seed: int, version: AdapterVersion | None) -> Request:
    generator = torch.Generator().manual_seed(seed)
    prompt = torch.randint(3, VOCAB_SIZE, (_PROMPT_LENGTH,), generator=generator)
    return Request(
        id=RequestId(str(seed)),
        prompt_ids=prompt.tolist(),
        version=version,
        sampling=ChoiceSampling(seed=0, temperature=0.0, logprobs=0, prompt_logprobs=0),
        max_tokens=_NUM_TOKENS,
        scores_prompt=True,
    )


def _run(engine: AnyEngine, answers: dict[RequestId, Scored]) -> None:
    while engine.has_work:
        for output in engine.step():
            if output.error is not None or output.token_id is None or output.logprobs is None:
                raise RuntimeError(str(output.error))
            answer = answers[output.request_id]
            answer.logprobs += [entry.logprob for entry in output.prompt_logprobs or ()]
            answer.logprobs.append(output.logprobs.logprob)
            answer.token_ids.append(output.token_id)
