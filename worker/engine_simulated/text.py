"""Tokenizer and grammars of the simulated engine."""

from collections.abc import Sequence
from typing import Never

from shared.errors import ErrorCode, JobError, JobFailed
from shared.protocol.jobs import Endpoint, Job, Prompt
from worker.engine_simulated.tokens import (
    END_ID,
    FIRST_ID,
    VOCAB_SIZE,
    chat_text,
    prompt_ids,
    token_text,
)
from worker.text.detokenizer import TextStream
from worker.text.interface import EncodedPrompt
from worker.text.prompt_style import BASE_STYLE, PromptStyle


class SimulatedTokenTable:
    """Texts of the token ids: bytes of prompts, and 8 hex digits of output tokens."""

    def inside(self, token_id: int) -> bytes:
        """Return the bytes of a token. The end token and unused ids have none."""
        if token_id >= FIRST_ID:
            return token_text(token_id).encode()
        return bytes([token_id]) if token_id < END_ID else b""

    def at_start(self, token_id: int) -> bytes:
        """Return the bytes of a token at the start of a text, which are the same."""
        return self.inside(token_id)

    def name(self, token_id: int) -> str:
        """Return the name of a token."""
        return "<end>" if token_id == END_ID else self.inside(token_id).decode(errors="replace")


class SimulatedTokenizer:
    """Tokenizes prompts to bytes."""

    def __init__(self) -> None:
        self._table = SimulatedTokenTable()

    def encode(self, job: Job, style: PromptStyle = BASE_STYLE) -> list[EncodedPrompt]:
        """Tokenize the prompts of a job. A chat counts as one prompt.

        Raises:
            JobFailed: a prompt is empty, or an id is outside the vocabulary.
        """
        if job.endpoint is Endpoint.CHAT:
            return [EncodedPrompt(prompt_ids(chat_text(job.messages or ())), "")]
        return [self._encode(prompt, has_echo=job.echo) for prompt in job.prompts]

    def stream(self, job: Job, prompt: EncodedPrompt) -> TextStream:
        """Return an empty text stream for one choice of a job's `prompt`."""
        return TextStream(
            self._table,
            job.sampling.stop,
            is_text_start=job.endpoint is Endpoint.CHAT,
            min_tokens=job.sampling.min_tokens,
            echo=prompt.echo,
        )

    def _encode(self, prompt: Prompt, *, has_echo: bool) -> EncodedPrompt:
        ids = prompt_ids(prompt) if isinstance(prompt, str) else list(prompt)
        if not ids:
            _refuse("prompt is empty; send at least one token", "prompt")
        for token_id in ids:
            if not 0 <= token_id < VOCAB_SIZE:
                message = f"prompt: token id {token_id} is outside the vocabulary of {VOCAB_SIZE}"
                _refuse(f"{message} tokens", "prompt")
        return EncodedPrompt(ids, self._text(ids) if has_echo else "")

    def _text(self, ids: Sequence[int]) -> str:
        return b"".join(map(self._table.inside, ids)).decode(errors="replace")


class SimulatedGrammars:
    """Refuses jobs whose answers must follow a grammar."""

    async def for_job(self, job: Job) -> None:
        """Return None, because any text is allowed.

        Raises:
            JobFailed: the job has tools or a JSON schema.
        """
        if job.tools is not None:
            _refuse("tools aren't supported by the simulated engine", "tools")
        if job.sampling.json_schema is not None:
            _refuse("JSON schemas aren't supported by the simulated engine", "response_format")


def _refuse(message: str, param: str) -> Never:
    raise JobFailed(JobError(code=ErrorCode.INVALID_VALUE, message=message, param=param))
