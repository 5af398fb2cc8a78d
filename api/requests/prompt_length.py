"""Refuses, before tokenization, prompts that can't fit into the context. Pure."""

from shared.context_length import least_bytes, output_limit
from shared.protocol.jobs import Endpoint, Job

JOINED_BYTES = 12
"""Number of bytes at the start of each message that aren't counted in the lower bound.

The chat template puts text before a message. A tokenizer may compose that text with up to three
characters of the message, each of up to four bytes.
"""


def check_length(job: Job, *, max_model_len: int, max_token_bytes: int) -> None:
    """Check that each prompt of the job can fit into the context.

    Token ids are counted exactly. For text, the check uses a lower bound, because a token covers at
    most `max_token_bytes` bytes. If `max_token_bytes` is 0, that maximum isn't known, and text
    isn't checked.

    Raises:
        JobFailed: a prompt doesn't fit, however it is tokenized.
    """
    for prompt in job.prompts:
        if not isinstance(prompt, str):
            output_limit(job, len(prompt), max_model_len)
    if max_token_bytes:
        num_tokens = -(-_longest_text_bytes(job) // max_token_bytes)
        output_limit(job, num_tokens, max_model_len, is_least=True)


def _longest_text_bytes(job: Job) -> int:
    """Return the size in bytes of the longest text that is certain to be in a prompt."""
    if job.endpoint is Endpoint.CHAT:
        return max(0, max(_user_message_bytes(job), default=0))
    return max((least_bytes(text) for text in job.prompts if isinstance(text, str)), default=0)


def _user_message_bytes(job: Job) -> list[int]:
    """Return a lower bound, in bytes, of the text of each user message in the prompt.

    Whitespace around a message isn't counted, because some chat templates strip it. Messages of
    other roles aren't counted, because some chat templates leave them out.
    """
    texts = [turn["content"] for turn in job.messages or () if turn["role"] == "user"]
    return [least_bytes(text.strip()) - JOINED_BYTES for text in texts]
