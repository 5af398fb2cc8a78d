"""Whether a prompt fits into the model's context, by its tokens or by its bytes alone."""

import unicodedata

from shared.errors import ErrorCode, JobError, JobFailed
from shared.protocol.jobs import Endpoint, Job

SPACE_MARK = "\u2581"
"""Stands for a space in tokens of sentencepiece's kind."""
RARE_BYTES = bytes([*range(9), 11, 12, *range(14, 32), 127, 192, 193, *range(241, 256)])
"""Bytes that a byte-level vocabulary may lack, so that a text's have no token: of control
characters, of characters that Unicode doesn't define, and such that UTF-8 doesn't have."""
_ASCII = bytes(range(128))
_NFC_SHRINKS_BY = 4
"""NFC leaves at least a quarter of the bytes of any text, as all of Unicode was tried."""


def output_limit(
    job: Job, num_prompt_tokens: int, max_model_len: int, *, is_least: bool = False
) -> int:
    """Return how many tokens each choice of the job may have.

    A chat answer is cut at the end of the context, with finish reason `length`; a completion that
    was asked to be longer is refused, as at OpenAI. With `is_least` the prompt may have more tokens
    than `num_prompt_tokens`, and a refusal says so.

    Raises:
        JobFailed: the prompt, or prompt and completion, don't fit into the context.
    """
    room = max_model_len - num_prompt_tokens
    wanted = job.sampling.max_tokens
    if room <= 0:
        raise _too_long(job, num_prompt_tokens, max_model_len, is_least)
    if wanted is None or (wanted > room and job.endpoint is Endpoint.CHAT):
        return room
    if wanted > room:
        raise _too_long(job, num_prompt_tokens, max_model_len, is_least)
    return wanted


def least_bytes(text: str) -> int:
    """Return how many bytes of `text` its tokens have to cover, whatever the tokenizer's form.

    A tokenizer may compose characters (NFC), and write a space as a mark of three bytes, which the
    text itself may hold as well. So a mark counts as one byte; and of a text that isn't composed
    yet, ASCII counts in full and the rest as the least that composing leaves. `RARE_BYTES` don't
    count.
    """
    raw = text.encode().translate(None, RARE_BYTES)
    if unicodedata.is_normalized("NFC", text):
        return len(raw) - text.count(SPACE_MARK) * (len(SPACE_MARK.encode()) - 1)
    num_others = len(raw.translate(None, _ASCII))
    return len(raw) - num_others + num_others // _NFC_SHRINKS_BY


def _too_long(job: Job, num_tokens: int, max_model_len: int, is_least: bool) -> JobFailed:
    param = "messages" if job.endpoint is Endpoint.CHAT else "prompt"
    least = "at least " if is_least else ""
    message = f"This model's maximum context length is {max_model_len} tokens. However, "
    wanted = job.sampling.max_tokens
    if job.endpoint is Endpoint.CHAT or wanted is None or num_tokens >= max_model_len:
        message += f"your {param} resulted in {least}{num_tokens} tokens, which leaves no room "
        message += f"for an answer. Please reduce the length of the {param}."
    else:
        message += f"you requested {least}{num_tokens + wanted} tokens ({least}{num_tokens} in "
        message += f"the prompt, {wanted} for the completion). Please reduce one of them."
    code = ErrorCode.CONTEXT_LENGTH_EXCEEDED
    return JobFailed(JobError(code=code, message=message, param=param))
