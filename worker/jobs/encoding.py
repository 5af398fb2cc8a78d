"""Tokenizes the prompts of claimed jobs."""

import asyncio
from collections.abc import Sequence

import orjson

from shared.protocol.jobs import Job
from worker.text.interface import EncodedPrompt, PromptTokenizer
from worker.text.prompt_style import PromptStyle
from worker.text.scored_prompts import encode_scored

SHORT_BYTES = 2048
"""Maximum size, in bytes, of inputs that are tokenized without a thread."""


async def encode(
    tokenizer: PromptTokenizer, job: Job, style: PromptStyle
) -> Sequence[EncodedPrompt]:
    """Tokenize the prompts of a job. Long inputs are tokenized in a thread.

    Tokenizing a short input takes a fraction of a millisecond, and starting a thread for it takes
    longer.

    Raises:
        JobFailed: the client's input is invalid; the error names the field.
    """
    if job.scoring is not None:
        return await encode_scored(tokenizer, job, style)
    text = await tokenizer.render(job, style)
    texts = (job.messages, job.prompts, job.tools, text)
    if job.images:
        return await tokenizer.encode_images(job, style, text)
    if len(orjson.dumps(texts)) <= SHORT_BYTES:
        return tokenizer.encode(job, style, text)
    return await asyncio.to_thread(tokenizer.encode, job, style, text)
