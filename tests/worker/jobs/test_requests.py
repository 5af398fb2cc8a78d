"""Requests to the engine, from jobs and their prompts."""

import threading
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from queue_support import make_job
from running_jobs import EOS_ID, AsciiTokenizer, ascii_ids, claim

from shared.errors import JobFailed
from shared.protocol.events import Tokens
from shared.protocol.ids import AdapterVersion
from shared.protocol.jobs import Endpoint, Job, SamplingParams
from shared.protocol.results import FinishReason
from worker.engine.request import Request
from worker.engine_simulated.text import SimulatedTokenizer
from worker.jobs.encoding import SHORT_BYTES, encode
from worker.jobs.requests import MAX_PROMPT_SCORES, choices_of, request_of
from worker.jobs.running import RunningJob
from worker.jobs.running_choice import RunningChoice
from worker.text.interface import EncodedPrompt
from worker.text.prompt_style import BASE_STYLE, PromptStyle
from worker.text.tokenizer import Tokenizer

BASE = AdapterVersion("base@0")
SERVED: Any = SimpleNamespace(
    tokenizer=Tokenizer(AsciiTokenizer(), vocab_size=128),
    base=SimpleNamespace(version=BASE, max_model_len=20),
    info=SimpleNamespace(eos_ids=frozenset({EOS_ID})),
)


def job_of(
    sampling: SamplingParams, *, version: AdapterVersion = BASE, **changes: Any
) -> RunningJob:
    return RunningJob(claim(make_job(version, sampling=sampling, **changes), claim_epoch=0xAB))


def choices(job: RunningJob, published: Sequence[Tokens] = ()) -> list[RunningChoice]:
    prompts = [EncodedPrompt(ascii_ids(str(text)), "") for text in job.job.prompts]
    return choices_of(job, prompts, published, SERVED)


def tokens(job: Job, choice: int, text: str, finish: FinishReason | None = None) -> Tokens:
    """Return an event with the first tokens of a choice."""
    ids = tuple(ascii_ids(text))
    return Tokens(job=job.id, try_=1, choice=choice, index=0, ids=ids, text=text, finish=finish)


def request(
    sampling: SamplingParams, style: PromptStyle = BASE_STYLE, *, grammar: Any = None, **job: Any
) -> Request:
    """Return the request of the last choice of a job."""
    running = job_of(sampling, **job)
    return request_of(running, choices(running)[-1], SERVED, grammar, style)


def test_choices_are_ordered_by_prompt_and_sampled_by_their_number_within_it() -> None:
    job = job_of(SamplingParams(seed=9, n=2, max_tokens=3), prompts=("a", "bc"))
    made = choices(job)
    prompts = [ascii_ids(text) for text in ("a", "a", "bc", "bc")]
    assert [(c.choice, c.prompt_ids) for c in made] == list(enumerate(prompts))
    last = request_of(job, made[-1], SERVED, None)
    assert last.id.endswith(":3")
    assert (last.sampling.seed, last.sampling.choice) == (9, 1)


def test_a_request_continues_after_the_restored_tokens() -> None:
    job = job_of(SamplingParams(seed=1, max_tokens=5))
    (choice,) = choices(job, [tokens(job.job, 0, "ab")])
    made = request_of(job, choice, SERVED, None)
    assert made.output_ids == ascii_ids("ab")
    made.output_ids.append(1)  # by the engine
    assert choice.ids == ascii_ids("ab")


def test_sampling_defaults_of_the_adapter_apply_to_fields_that_the_client_left_out() -> None:
    sampling = SamplingParams(
        seed=1, max_tokens=3, temperature=0.7, top_p=0.9, left_out=("temperature", "top_k")
    )
    style = PromptStyle(sampling={"temperature": 0.0, "top_p": 0.1, "top_k": 4})
    made = request(sampling, style).sampling
    assert (made.temperature, made.top_p, made.top_k) == (0.0, 0.9, 4)


def test_a_request_stops_at_end_tokens_of_base_and_adapter_and_stop_tokens_of_the_client() -> None:
    sampling = SamplingParams(seed=1, max_tokens=3, stop_token_ids=(70, 71))
    style = PromptStyle(eos_ids=frozenset({7}))
    assert request(sampling).stop_ids == {EOS_ID, 70, 71}
    assert request(sampling, style).stop_ids == {EOS_ID, 7, 70, 71}
    assert request(replace(sampling, ignore_eos=True), style).stop_ids == {70, 71}


@pytest.mark.parametrize(
    ("echo", "logprobs", "published", "expected"),
    [
        (True, 0, "", True),
        (False, 2, "", False),
        (True, None, "", False),
        (True, 2, "ab", False),  # an earlier try has published the prompt's logprobs
    ],
)
def test_the_prompt_is_scored_once_if_it_is_echoed_with_logprobs(
    echo: bool, logprobs: int | None, published: str, expected: bool
) -> None:
    job = job_of(SamplingParams(seed=1, max_tokens=5, logprobs=logprobs), echo=echo)
    (choice,) = choices(job, [tokens(job.job, 0, published)] if published else [])
    assert request_of(job, choice, SERVED, None).scores_prompt is expected


@pytest.mark.parametrize("num_top", [None, 0, 5])
def test_a_prompt_is_scored_on_request_with_the_first_of_its_choices(num_top: int | None) -> None:
    sampling = SamplingParams(seed=1, max_tokens=5, n=2, prompt_logprobs=num_top)
    job = job_of(sampling)
    made = choices(job)
    requests = [request_of(job, choice, SERVED, None) for choice in made]
    assert [each.scores_prompt for each in requests] == [num_top is not None, False]
    assert requests[0].sampling.prompt_logprobs == num_top
    assert made[0].reports.echoed_top is None


def test_answers_without_tokens_have_scores_of_their_prompt_if_they_are_wanted() -> None:
    sampling = SamplingParams(seed=1, max_tokens=0, n=2)
    prompt = EncodedPrompt(ascii_ids("hello"), "hello")
    made = choices_of(job_of(sampling, echo=True), [prompt], (), SERVED)
    assert [(each.text, each.finish) for each in made] == [("hello", FinishReason.LENGTH)] * 2
    job = job_of(replace(sampling, logprobs=0), echo=True)
    made = choices(job)
    requests = [request_of(job, choice, SERVED, None) for choice in made]
    assert [choice.finish for choice in made] == [None, None]
    assert [(each.max_tokens, each.scores_prompt) for each in requests] == [(0, True)] * 2
    done = [tokens(job.job, 0, "", FinishReason.LENGTH)]
    assert [each.finish for each in choices(job, done)] == [FinishReason.LENGTH, None]


def test_logprobs_of_named_tokens_cover_the_end_of_an_answer() -> None:
    sampling = SamplingParams(seed=1, max_tokens=5, logprobs=0, logprob_token_ids=(7, 8))
    job = job_of(sampling)
    (choice,) = choices(job)
    assert choice.reports.end_logprobs
    assert request_of(job, choice, SERVED, None).sampling.logprob_token_ids == (7, 8)


ECHO, CHAT = {"echo": True}, {"endpoint": Endpoint.CHAT}


@pytest.mark.parametrize(
    ("logprobs", "prompt_logprobs", "n", "job", "divisor", "param"),
    [
        (4, None, 1, ECHO, 5, "prompt"),
        (4, None, 2, ECHO, 5, "logprobs"),
        (4, 4, 1, ECHO, 5, "logprobs"),
        (0, 20, 1, ECHO, 5, "prompt_logprobs"),
        (None, 4, 1, ECHO, 5, "prompt"),
        (4, None, 2, {}, 5, "prompt"),  # logprobs of answers alone have no such limit
        (None, 20, 1, {}, 21, "prompt"),
        (None, 20, 2, {}, 21, "prompt_logprobs"),
        (None, 20, 2, CHAT, 21, "messages"),
        (None, None, 2, {}, 21, "prompt"),
    ],
)
def test_too_many_logprobs_of_prompts_are_refused(
    logprobs: int | None,
    prompt_logprobs: int | None,
    n: int,
    job: dict[str, Any],
    divisor: int,
    param: str,
) -> None:
    sampling = SamplingParams(
        seed=1, max_tokens=1, n=n, logprobs=logprobs, prompt_logprobs=prompt_logprobs
    )
    prompt = EncodedPrompt([1] * (MAX_PROMPT_SCORES // divisor), "")
    with pytest.raises(JobFailed) as failure:  # without too many, the prompt is too long
        choices_of(job_of(sampling, **job), [prompt], (), SERVED)
    error = failure.value.error
    assert (error.param, error.status) == (param, 400)
    if param == "logprobs":
        assert "with echo" in error.message
        assert str(MAX_PROMPT_SCORES) in error.message


@pytest.mark.parametrize(
    ("max_tokens", "n", "token_limit", "most"),
    [
        (None, 1, None, 18),  # what the prompt leaves in the context
        (None, 1, 10, 8),
        (None, 2, 10, 4),
        (None, 1, 1000, 18),
        (None, 1, 1, 1),
        (15, 1, 10, 15),  # the queue has checked what the request asks for
    ],
)
def test_an_answer_without_max_tokens_has_at_most_the_keys_limit(
    max_tokens: int | None, n: int, token_limit: int | None, most: int
) -> None:
    sampling = SamplingParams(seed=1, n=n, max_tokens=max_tokens)
    job = make_job(BASE, endpoint=Endpoint.CHAT, sampling=sampling, prompts=("ab",))
    running = RunningJob(claim(job, token_limit=token_limit))
    assert [choice.max_tokens for choice in choices(running)] == [most] * n


class RecordingTokenizer(SimulatedTokenizer):
    """Tokenizer that records the thread of its last call."""

    thread: int | None = None

    def encode(
        self, job: Job, style: PromptStyle = BASE_STYLE, text: str | None = None
    ) -> list[EncodedPrompt]:
        self.thread = threading.get_ident()
        return super().encode(job, style)


@pytest.mark.parametrize(
    ("fields", "is_in_thread"),
    [
        ({"prompts": ("short",)}, False),
        ({"prompts": ("x" * SHORT_BYTES,)}, True),
        ({"prompts": ("short",) * SHORT_BYTES}, True),
        ({"prompts": (), "messages": ({"role": "user", "content": "x" * SHORT_BYTES},)}, True),
    ],
)
async def test_only_long_inputs_are_tokenized_in_a_thread(
    fields: dict[str, Any], is_in_thread: bool
) -> None:
    tokenizer = RecordingTokenizer()
    job = make_job("base@1", **fields)
    prompts = await encode(tokenizer, job, BASE_STYLE)
    assert prompts == SimulatedTokenizer().encode(job)
    assert (tokenizer.thread != threading.get_ident()) == is_in_thread
