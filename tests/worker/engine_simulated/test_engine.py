"""Ends, waits and hangs of the simulated engine. The contract tests cover the rest."""

import time
from typing import Any

from engine_requests import make_request

from shared.protocol.ids import AdapterVersion
from shared.protocol.results import FinishReason
from worker.engine.request import ChoiceSampling, Request, StepOutput
from worker.engine_simulated.engine import SimulatedEngine
from worker.engine_simulated.tokens import END_ID

BASE = AdapterVersion("base@000000000000")
PROMPT = [1, 2, 3]


def engine_of(step_s: float = 0) -> SimulatedEngine:
    return SimulatedEngine(
        BASE, max_num_seqs=1000, max_model_len=4096, adapter_bytes=0, step_s=step_s
    )


def request(seed: int, **fields: Any) -> Request:
    given = {"max_tokens": 2000, "claim_epoch": 5, "sampling": ChoiceSampling(seed=seed), **fields}
    return make_request(f"{seed}", PROMPT, **given)


def run(engine: SimulatedEngine, *requests: Request) -> list[StepOutput]:
    """Run requests to their end and return the last output of each."""
    for each in requests:
        engine.add(each)
    ends = []
    while engine.has_work:
        ends += [output for output in engine.step() if output.finish]
    return ends


def test_the_end_token_comes_after_256_tokens_on_average() -> None:
    requests = [request(seed, stop_ids=frozenset({END_ID})) for seed in range(400)]
    ends = run(engine_of(), *requests)
    assert {end.token_id for end in ends if end.finish is FinishReason.STOP} == {END_ID}
    mean = sum(len(each.output_ids) for each in requests) / len(requests)
    assert 200 < mean < 320


def test_no_end_token_comes_before_min_tokens_or_if_it_is_ignored() -> None:
    patient = [
        request(
            seed, stop_ids=frozenset({END_ID}), sampling=ChoiceSampling(seed=seed, min_tokens=300)
        )
        for seed in range(300)
    ]
    ignoring = [request(seed, max_tokens=500) for seed in range(300, 400)]
    run(engine_of(), *patient, *ignoring)
    assert 301 <= min(len(each.output_ids) for each in patient) < 320
    assert {len(each.output_ids) for each in ignoring} == {500}


def test_a_step_takes_the_set_time_whatever_the_number_of_requests() -> None:
    engine = engine_of(step_s=0.02)
    started_s = time.monotonic()
    run(engine, *(request(seed, max_tokens=5) for seed in range(400)))
    assert 5 * 0.02 <= time.monotonic() - started_s < 400 * 5 * 0.02 / 2
