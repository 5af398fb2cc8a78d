"""From a claimed job's prompts to its choices, and to what the engine computes for them."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from shared.context_length import output_limit
from shared.protocol.events import Tokens
from worker.engine.grammar import Grammar
from worker.engine.request import Request, RequestId, RowSampling
from worker.jobs.running import RunningChoice, RunningJob
from worker.served_model import ServedModel
from worker.text.prompt_style import OF_BASE, Style
from worker.text.tokenizer import EncodedPrompt


def choices_of(
    job: RunningJob,
    prompts: Sequence[EncodedPrompt],
    shown: Iterable[Tokens],
    served: ServedModel,
) -> list[RunningChoice]:
    """The job's choices, those of its first prompt first, going on behind what was `shown`.

    Raises:
        JobFailed: a prompt is too long, or the worker can't go on behind what was shown.
    """
    num_each, shown_of = job.job.sampling.n, {tokens.choice: tokens for tokens in shown}
    choices = []
    for number in range(job.job.num_choices):
        prompt = prompts[number // num_each]
        choice = RunningChoice(
            # With the claim's epoch in it, no late output of an earlier claim is taken for this
            # one's. A failover may repeat the try.
            RequestId(f"{job.id}:{job.claimed.epoch:x}:{number}"),
            number,
            served.tokenizer.stream(job.job, prompt),
            prompt_ids=prompt.ids,
            max_tokens=output_limit(job.job, len(prompt.ids), served.max_model_len),
        )
        if number in shown_of:
            choice.restore(shown_of[number])
        if choice.finish is None and len(choice.ids) >= choice.max_tokens:
            choice.reach_limit()
        choices.append(choice)
    return choices


def request_of(
    job: RunningJob,
    choice: RunningChoice,
    served: ServedModel,
    grammar: Grammar | None,
    style: Style = OF_BASE,
) -> Request:
    """What the engine has to compute of a choice, which follows `grammar` if there is one.

    What the client left out is as the model's `style` says.

    Raises:
        JobFailed: what was shown of it doesn't follow the grammar.
    """
    version, left_out = job.job.version, job.job.sampling.left_out
    defaults = {name: value for name, value in style.sampling.items() if name in left_out}
    sampling = replace(job.job.sampling, **defaults)  # type: ignore[arg-type]  # all are numbers
    return Request(
        id=choice.request_id,
        prompt_ids=choice.prompt_ids,
        version=None if version == served.base.version else version,
        sampling=RowSampling(
            seed=sampling.seed,
            # Counted for each prompt, so that it is answered as it would be alone.
            choice=choice.choice % sampling.n,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            min_p=sampling.min_p,
            presence_penalty=sampling.presence_penalty,
            frequency_penalty=sampling.frequency_penalty,
            repetition_penalty=sampling.repetition_penalty,
            logit_bias=sampling.logit_bias,
            min_tokens=sampling.min_tokens,
            logprobs=sampling.logprobs,
        ),
        max_tokens=choice.max_tokens,
        stop_ids=frozenset() if sampling.ignore_eos else served.eos_ids | style.eos_ids,
        tenant=job.job.tenant,
        grammar=grammar.start(choice.ids) if grammar else None,
        output_ids=list(choice.ids),
        scores_prompt=job.job.echo and sampling.logprobs is not None and not choice.ids,
    )
