"""Checks whether prompts and answers fit into the model's context length."""

import unicodedata

from shared.errors import ErrorCode, JobFailed, failed
from shared.protocol.jobs import Endpoint, Job

SPACE_MARK = "\u2581"
"""Character that represents a space in the tokens of SentencePiece vocabularies."""
RARE_BYTES = bytes([*range(9), 11, 12, *range(14, 32), 127, 192, 193, *range(241, 256)])
"""Bytes for which a byte-level vocabulary may have no token: control characters, bytes that occur
only in undefined characters of Unicode, and bytes that never occur in UTF-8."""
PARAMS = {
    Endpoint.CHAT: "messages",
    Endpoint.COMPLETIONS: "prompt",
    Endpoint.EMBEDDINGS: "input",
}
"""Request field that has the prompts, for each endpoint."""
_ASCII = bytes(range(128))
_NFC_SHRINKS_BY = 4
"""Maximum factor by which NFC reduces the number of bytes of a text. It was determined over all
characters."""


def output_limit(
    job: Job, num_prompt_tokens: int, max_model_len: int, *, is_least: bool = False
) -> int:
    """Return the maximum number of output tokens of each choice of one prompt.

    A chat answer may end at the end of the context, with finish reason `length`, even if
    `max_tokens` is larger. For a completion, the prompt and `max_tokens` must fit together, as in
    OpenAI's API. For embeddings, whose prompts may fill the context, the limit is 1. Each pair of a
    job for scores needs room for one token.

    If `is_least`, `num_prompt_tokens` is only a lower bound, and error messages say "at least".

    Raises:
        JobFailed: the prompt, or the prompt and the answer of a completion, don't fit.
    """
    num_left = max_model_len - num_prompt_tokens
    if job.endpoint is Endpoint.EMBEDDINGS and num_left >= 0:
        return 1
    wanted = num_left if job.sampling.max_tokens is None else job.sampling.max_tokens
    if job.scoring is not None and num_left > 0:
        return wanted
    if num_left <= 0 or (wanted > num_left and job.endpoint is not Endpoint.CHAT):
        raise _too_long(job, num_prompt_tokens, max_model_len, is_least)
    return min(wanted, num_left)


def least_bytes(text: str) -> int:
    """Return a lower bound on the number of bytes that the tokens of `text` represent.

    Front ends use this bound to refuse prompts that are too long. `worker/text/max_token_bytes.py`
    must treat bytes in the same way. The bound also holds for tokenizers that compose characters
    (NFC), and for those that replace spaces by `SPACE_MARK`. `RARE_BYTES` are ignored. If a text is
    in NFC, each `SPACE_MARK` counts as one byte, because its token may be that of a space. In other
    texts, only ASCII bytes and a quarter of the other bytes are counted, because composing may
    remove the rest.
    """
    raw = text.encode().translate(None, RARE_BYTES)
    if unicodedata.is_normalized("NFC", text):
        return len(raw) - text.count(SPACE_MARK) * (len(SPACE_MARK.encode()) - 1)
    num_others = len(raw.translate(None, _ASCII))
    return len(raw) - num_others + num_others // _NFC_SHRINKS_BY


def _too_long(job: Job, num_tokens: int, max_model_len: int, is_least: bool) -> JobFailed:
    param = job.scoring.fields[1] if job.scoring else PARAMS[job.endpoint]
    least = "at least " if is_least else ""
    message = f"This model's maximum context length is {max_model_len} tokens. However, "
    wanted = job.sampling.max_tokens
    if job.endpoint is Endpoint.EMBEDDINGS:
        message += f"an input has {least}{num_tokens} tokens. Please reduce its length."
    elif job.scoring is not None:
        message += f"a pair has {least}{num_tokens} tokens, which leaves no room for another one. "
        message += f"Please reduce the length of the {param}."
    elif job.endpoint is Endpoint.CHAT or wanted is None or num_tokens >= max_model_len:
        message += f"your {param} resulted in {least}{num_tokens} tokens, which leaves no room "
        message += f"for an answer. Please reduce the length of the {param}."
    else:
        message += f"you requested {least}{num_tokens + wanted} tokens ({least}{num_tokens} in "
        message += f"the prompt, {wanted} for the completion). Please reduce one of them."
    code = ErrorCode.CONTEXT_LENGTH_EXCEEDED
    return failed(code, message, param)
