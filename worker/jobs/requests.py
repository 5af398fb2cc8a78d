"""Converts a claimed job to choices and to the engine's requests."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from shared.context_length import output_limit
from shared.protocol.events import Tokens
from shared.protocol.jobs import SamplingParams
from worker.engine.request import ChoiceSampling, Request, RequestId
from worker.jobs.running import RunningJob
from worker.jobs.running_choice import RunningChoice
from worker.served_model import ServedModel
from worker.text.interface import EncodedPrompt
from worker.text.prompt_style import BASE_STYLE, PromptStyle

if TYPE_CHECKING:  # it imports llguidance
    from worker.engine.grammar import Grammar


def choices_of(
    job: RunningJob,
    prompts: Sequence[EncodedPrompt],
    published: Iterable[Tokens],
    served: ServedModel,
) -> list[RunningChoice]:
    """Return a job's choices, ordered by prompt and then by number.

    Args:
        job: the claimed job.
        prompts: the job's tokenized prompts.
        published: the tokens that earlier tries have published, one event per choice.
        served: the model that computes the job.

    Raises:
        JobFailed: a prompt is too long, or this worker can't continue the published text.
    """
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
            max_tokens=output_limit(job.job, len(prompt.ids), served.base.max_model_len),
            reports_ids=job.job.sampling.reports_ids,
        )
        if number in published_of:
            choice.restore(published_of[number])
        if choice.finish is None and len(choice.ids) >= choice.max_tokens:
            choice.finish_at_limit()
        choices.append(choice)
    return choices


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

    Args:
        job: the choice's job.
        choice: the choice to compute.
        served: the model that computes the choice.
        grammar: the grammar that the answer must follow; None if any text is allowed.
        style: the style of the job's model. It sets the sampling fields that the client left out.
        bad_words: tokens of the job's bad words.

    Raises:
        JobFailed: the tokens that earlier tries have published don't follow the grammar.
    """
    version, left_out = job.job.version, job.job.sampling.left_out
    defaults = {name: value for name, value in style.sampling.items() if name in left_out}
    sampling = replace(job.job.sampling, **defaults)  # type: ignore[arg-type]  # all are numbers
    return Request(
        id=choice.request_id,
        prompt_ids=choice.prompt_ids,
        version=None if version == served.base.version else version,
        sampling=ChoiceSampling(
            seed=sampling.seed,
            # Numbered per prompt, so that a prompt's answers don't depend on the other prompts.
            choice=choice.choice % sampling.n,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            min_p=sampling.min_p,
            presence_penalty=sampling.presence_penalty,
            frequency_penalty=sampling.frequency_penalty,
            repetition_penalty=sampling.repetition_penalty,
            logit_bias=sampling.logit_bias,
            allowed_token_ids=sampling.allowed_token_ids,
            bad_words=bad_words,
            min_tokens=sampling.min_tokens,
            logprobs=sampling.logprobs,
        ),
        max_tokens=choice.max_tokens,
        stop_ids=_stop_ids(sampling, served, style),
        claim_epoch=job.claimed.claim_epoch,
        tenant=job.job.tenant,
        grammar=grammar.start(choice.ids) if grammar else None,
        output_ids=list(choice.ids),
        embedding=job.job.embedding,
        scores_prompt=job.job.echo and sampling.logprobs is not None and not choice.ids,
    )


def _stop_ids(sampling: SamplingParams, served: ServedModel, style: PromptStyle) -> frozenset[int]:
    own = frozenset(sampling.stop_token_ids)
    return own if sampling.ignore_eos else own | served.info.eos_ids | style.eos_ids
