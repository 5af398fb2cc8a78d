"""Converts a claimed job to choices and to the engine's requests.

Limits the number of logprobs of prompts' tokens (`MAX_PROMPT_SCORES`).
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from shared.context_length import output_limit
from shared.errors import JobFailed, invalid_param
from shared.protocol.events import Tokens
from shared.protocol.jobs import Endpoint, Job, SamplingParams
from worker.engine.request import ChoiceSampling, Request, RequestId
from worker.jobs.running import RunningJob
from worker.jobs.running_choice import Reports, RunningChoice
from worker.served_model import ServedModel
from worker.text.interface import EncodedPrompt
from worker.text.prompt_style import BASE_STYLE, PromptStyle

if TYPE_CHECKING:  # it imports llguidance
    from worker.engine.grammar import Grammar

MAX_PROMPT_SCORES = 500_000
"""Maximum number of logprobs of prompts' tokens in one answer. They are about 35 MB of JSON."""


def choices_of(
    job: RunningJob,
    prompts: Sequence[EncodedPrompt],
    published: Iterable[Tokens],
    served: ServedModel,
) -> list[RunningChoice]:
    """Return a job's choices, ordered by prompt and then by number.

    `published` has the tokens that earlier tries have published, one event per choice.

    Raises:
        JobFailed: a prompt is too long, the job asks for too many logprobs of prompts, or this
            worker can't continue the published text.
    """
    _check_scores(job.job, prompts)
    num_per_prompt = job.job.sampling.n
    published_of = {tokens.choice: tokens for tokens in published}
    choices = []
    for number in range(job.job.num_choices):
        prompt = prompts[number // num_per_prompt]
        choice = RunningChoice(
            # With the claim's epoch in the id, late outputs of an earlier claim are ignored. The
            # number of the try isn't unique, since a failover may repeat it.
            RequestId(f"{job.id}:{job.claimed.claim_epoch:x}:{number}"),
            number,
            served.tokenizer.stream(job.job, prompt),
            prompt_ids=prompt.ids,
            max_tokens=_max_tokens(job, len(prompt.ids), served.base.max_model_len),
            images=prompt.images,
            reasoning=prompt.reasoning,
            reports=_reports(job.job, number, prompt),
        )
        if number in published_of:
            choice.restore(published_of[number])
        if choice.is_at_limit:
            choice.finish_at_limit()
        choices.append(choice)
    return choices


def _max_tokens(job: RunningJob, num_prompt_tokens: int, max_model_len: int) -> int:
    """Return the maximum number of tokens of an answer. The API key may limit it, too."""
    most, limit = output_limit(job.job, num_prompt_tokens, max_model_len), job.claimed.token_limit
    if limit is None or job.job.sampling.max_tokens is not None:
        return most
    return max(1, min(most, (limit - num_prompt_tokens) // job.job.num_choices))


def request_of(
    job: RunningJob,
    choice: RunningChoice,
    served: ServedModel,
    grammar: "Grammar | None",
    style: PromptStyle = BASE_STYLE,
    *,
    bad_words: tuple[tuple[int, ...], ...] = (),
) -> Request:
    """Return the engine's request for the rest of a choice.

    The model's `style` sets the sampling fields that the client left out. Without a `grammar`, any
    text is allowed. `bad_words` are the tokens of the job's bad words.

    Raises:
        JobFailed: the tokens that earlier tries have published don't follow the grammar.
    """
    version, left_out = job.job.version, job.job.sampling.left_out
    defaults = {name: value for name, value in style.sampling.items() if name in left_out}
    sampling = replace(job.job.sampling, **defaults)  # type: ignore[arg-type]  # all are numbers
    if (scored := choice.reports.scored) is not None:
        sampling = replace(sampling, logprobs=0, logprob_token_ids=scored.labels)
    return Request(
        id=choice.request_id,
        prompt_ids=choice.prompt_ids,
        images=choice.images,
        version=None if version == served.base.version else version,
        sampling=ChoiceSampling(
            **sampling.values(),
            # Numbered per prompt, so that a prompt's answers don't depend on the other prompts.
            choice=choice.choice % sampling.n,
            bad_words=bad_words,
        ),
        max_tokens=choice.max_tokens,
        stop_ids=_stop_ids(sampling, served, style),
        claim_epoch=job.claimed.claim_epoch,
        tenant=job.job.tenant,
        cache_salt=sampling.cache_salt,
        is_preemptible=job.job.is_preemptible,
        grammar=grammar.start(choice.ids) if grammar else None,
        output_ids=list(choice.ids),
        embedding=job.job.embedding,
        scores_prompt=choice.needs_prompt_logprobs,
        is_scoring=job.job.scoring is not None,
    )


def _check_scores(job: Job, prompts: Sequence[EncodedPrompt]) -> None:
    """Raise `JobFailed` if the answer would have too many logprobs of the prompts' tokens."""
    sampling, num_tokens = job.sampling, sum(len(prompt.ids) for prompt in prompts)
    # A completion repeats the scores of its prompt in each choice, as in vLLM.
    num_copies = sampling.n if job.endpoint is Endpoint.COMPLETIONS else 1
    scores = _num_scores(sampling.prompt_logprobs, num_tokens * num_copies)
    echoed = _num_scores(sampling.logprobs if job.echo else None, num_tokens * sampling.n)
    if scores > MAX_PROMPT_SCORES:
        raise _too_many_scores("prompt_logprobs", "", scores)
    if echoed + scores > MAX_PROMPT_SCORES:
        both = "with echo and prompt_logprobs " if scores else "with echo "
        raise _too_many_scores("logprobs", both, echoed + scores)


def _num_scores(num_top: int | None, num_tokens: int) -> int:
    return 0 if num_top is None else (num_top + 1) * num_tokens


def _too_many_scores(param: str, given: str, num: int) -> JobFailed:
    return invalid_param(
        param,
        f"{given}asks for {num} logprobs of the prompt's tokens, but one answer can have at most "
        f"{MAX_PROMPT_SCORES}; send a smaller number, a smaller n or shorter prompts",
    )


def _reports(job: Job, number: int, prompt: EncodedPrompt) -> Reports:
    """Return a choice's publishing options. Only the first choice has the prompt's scores."""
    sampling = job.sampling
    return Reports(
        prompt_ids=sampling.reports_ids,
        end_logprobs=job.reports_end,
        echoed_top=sampling.logprobs if job.echo else None,
        scored_top=sampling.prompt_logprobs if number % sampling.n == 0 else None,
        stop_tokens=frozenset(sampling.stop_token_ids),
        scored=prompt.scored,
    )


def _stop_ids(sampling: SamplingParams, served: ServedModel, style: PromptStyle) -> frozenset[int]:
    own = frozenset(sampling.stop_token_ids)
    return own if sampling.ignore_eos else own | served.info.eos_ids | style.eos_ids
