"""Refuses prompts that can't fit into the context before a worker tokenizes them. Pure."""

from shared.context_length import least_bytes, output_limit
from shared.protocol.jobs import Endpoint, Job

JOINED_BYTES = 12
"""A text's first characters may compose with what a chat template puts before it: three at most,
of up to four bytes."""


def check_length(job: Job, *, max_model_len: int, max_token_bytes: int) -> None:
    """Check that the job's prompts can fit into the context.

    Token ids are counted. Of texts it is known how many tokens they have at least, unless
    `max_token_bytes` is 0: the most bytes that a token can stand for, as far as that is known.

    Raises:
        JobFailed: a prompt is too long, whatever its tokens are.
    """
    for prompt in job.prompts:
        if not isinstance(prompt, str):
            output_limit(job, len(prompt), max_model_len)
    if max_token_bytes:
        num_tokens = -(-_longest(job) // max_token_bytes)
        output_limit(job, num_tokens, max_model_len, is_least=True)


def _longest(job: Job) -> int:
    """Bytes of the longest text that is in a prompt for certain."""
    if job.endpoint is Endpoint.CHAT:
        return max(0, max(_user_turns(job), default=0))
    return max((least_bytes(text) for text in job.prompts if isinstance(text, str)), default=0)


def _user_turns(job: Job) -> list[int]:
    """Bytes that chat templates show of each of the user's turns: some strip white space."""
    texts = [turn["content"] for turn in job.messages or () if turn["role"] == "user"]
    return [least_bytes(text.strip()) - JOINED_BYTES for text in texts]
