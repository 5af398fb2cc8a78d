"""Refuses prompts that can't fit into the context, before they are tokenized. Pure."""

import sys

from shared.context_length import least_bytes, output_limit
from shared.protocol.images import text_of
from shared.protocol.jobs import Endpoint, Job

JOINED_BYTES = 12
"""Number of bytes at the start of each message that the lower bound leaves out.

The chat template puts text before a message. A tokenizer's Unicode composition may merge that text
with up to three characters of the message. Each of these characters has up to four bytes.
"""


def check_length(job: Job, *, max_model_len: int, max_token_bytes: int) -> None:
    """Check that each prompt of the job can fit into the context.

    Token ids are counted exactly. For text, the check uses a lower bound: the size of the text
    divided by `max_token_bytes`, the maximum number of bytes that one token covers. If
    `max_token_bytes` is 0, the maximum is unknown, and text isn't checked.

    Raises:
        JobFailed: a prompt doesn't fit, however it is tokenized.
    """
    longest = job.sampling.truncate_prompt_tokens or sys.maxsize
    if job.scoring is not None:
        longest = job.scoring.max_document_tokens or sys.maxsize
    for prompt in job.prompts:
        if not isinstance(prompt, str):
            output_limit(job, min(len(prompt), longest), max_model_len)
    if max_token_bytes:
        num_tokens = -(-_longest_text_bytes(job) // max_token_bytes)
        output_limit(job, min(num_tokens, longest), max_model_len, is_least=True)


def _longest_text_bytes(job: Job) -> int:
    """Return a lower bound on the size, in bytes, of the longest of the job's text prompts."""
    if job.endpoint is Endpoint.CHAT:
        return max(0, max(_user_message_bytes(job), default=0))
    return max((least_bytes(text) for text in job.prompts if isinstance(text, str)), default=0)


def _user_message_bytes(job: Job) -> list[int]:
    """Return, for each user message, the minimum number of bytes that it adds to the prompt.

    Whitespace around a message isn't counted, because some chat templates strip it. Messages of
    other roles aren't counted, because some chat templates leave them out.
    """
    turns = job.messages or ()
    texts = [text_of(turn["content"]) for turn in turns if turn["role"] == "user"]
    return [least_bytes(text.strip()) - JOINED_BYTES for text in texts]
