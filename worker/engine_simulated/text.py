"""Tokenizer and grammars of the simulated engine."""

from collections.abc import Sequence
from hashlib import sha256
from typing import Any, Never

from shared.errors import ErrorCode, failed
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
from worker.text.interface import EncodedPrompt, text_stream
from worker.text.prompt_style import BASE_STYLE, PromptStyle


class SimulatedTokenTable:
    """Texts of token ids: one byte for a prompt's token, 8 hex digits for an output token."""

    def inside(self, token_id: int) -> bytes:
        """Return the bytes of a token. The end token and unused ids have none."""
        if token_id >= FIRST_ID:
            return token_text(token_id).encode()
        return bytes([token_id]) if token_id < END_ID else b""

    def at_start(self, token_id: int) -> bytes:
        """Return the bytes of a token at the start of a text. They are the same as elsewhere."""
        return self.inside(token_id)

    def name(self, token_id: int) -> str:
        """Return the name of a token."""
        return "<end>" if token_id == END_ID else self.inside(token_id).decode(errors="replace")


class SimulatedTokenizer:
    """Tokenizes prompts: each byte is one token, and each image has a line with its digest."""

    def __init__(self) -> None:
        self._table = SimulatedTokenTable()

    async def render(self, job: Job, style: PromptStyle) -> None:
        """Return None, because there are no templates. `encode` handles chats."""

    def encode(
        self, job: Job, style: PromptStyle = BASE_STYLE, text: str | None = None
    ) -> list[EncodedPrompt]:
        """See `PromptTokenizer.encode`. Jobs for embeddings are refused."""
        if job.endpoint is Endpoint.EMBEDDINGS:
            _refuse("embeddings aren't supported by the simulated engine", "model")
        if job.endpoint is Endpoint.CHAT:
            ids = prompt_ids(_digests(job.images) + chat_text(job.messages or ()))
            return [EncodedPrompt(ids[-(job.sampling.truncate_prompt_tokens or 0) :], "")]
        return [self._encode(prompt, job) for prompt in job.prompts]

    async def encode_images(
        self, job: Job, style: PromptStyle = BASE_STYLE, text: str | None = None
    ) -> list[EncodedPrompt]:
        """See `PromptTokenizer.encode_images`. Images are only hashed, so the call is fast."""
        return self.encode(job, style, text)

    async def question_text(self, job: Job, style: PromptStyle) -> str:
        """See `PromptTokenizer.question_text`."""
        return chat_text(job.messages or ())

    def encode_prompt(self, prompt: Prompt, param: str) -> list[int]:
        """See `PromptTokenizer.encode_prompt`."""
        ids = prompt_ids(prompt) if isinstance(prompt, str) else list(prompt)
        if not ids:
            _refuse(f"{param} is empty; send at least one token", param)
        _check_ids(ids, param)
        return ids

    def next_tokens(self, text: str, words: Sequence[str]) -> tuple[int, ...]:
        """Return the first token of each word. The `text` before the words has no effect."""
        return tuple(prompt_ids(word)[0] for word in words)

    def encode_text(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Return the tokens of a text, which are its bytes. There are no special tokens to add."""
        return prompt_ids(text)

    def decode(self, ids: Sequence[int]) -> str:
        """See `PromptTokenizer.decode`."""
        _check_ids(ids, "tokens")
        return self._text(ids)

    def token_names(self, ids: Sequence[int]) -> list[str]:
        """Return the name of each token."""
        return [self._table.name(token_id) for token_id in ids]

    def describe(self) -> dict[str, Any]:
        """Return the name of the tokenizer, the vocabulary size and the special tokens.

        The chat template is None.
        """
        return {
            "tokenizer_class": type(self).__name__,
            "vocab_size": VOCAB_SIZE,
            **dict.fromkeys(("bos_token", "unk_token", "pad_token", "chat_template")),
            "eos_token": self._table.name(END_ID),
        }

    def encode_words(self, words: Sequence[str]) -> tuple[tuple[int, ...], ...]:
        """Return an empty tuple, because sampling parameters have no effect on the tokens."""
        return ()

    def stream(self, job: Job, prompt: EncodedPrompt) -> TextStream:
        """Return an empty text stream for one choice of a job's `prompt`."""
        return text_stream(job, prompt, self._table)

    def _encode(self, prompt: Prompt, job: Job) -> EncodedPrompt:
        ids = self.encode_prompt(prompt, "prompt")[-(job.sampling.truncate_prompt_tokens or 0) :]
        return EncodedPrompt(ids, self._text(ids) if job.echo else "")

    def _text(self, ids: Sequence[int]) -> str:
        return b"".join(map(self._table.inside, ids)).decode(errors="replace")


class SimulatedGrammars:
    """Refuses jobs whose answers must follow a grammar."""

    async def for_job(self, job: Job, prompt: EncodedPrompt) -> None:
        """Return None if the job allows any text. Otherwise refuse the job."""
        if job.tools is not None:
            _refuse("tools aren't supported by the simulated engine", "tools")
        if job.sampling.is_constrained:
            param = job.sampling.constrained_by or "response_format"
            _refuse(f"{param} isn't supported by the simulated engine", param)


def _digests(images: Sequence[str]) -> str:
    return "".join(f"image: {sha256(image.encode()).hexdigest()}\n" for image in images)


def _check_ids(ids: Sequence[int], param: str) -> None:
    for token_id in ids:
        if not 0 <= token_id < VOCAB_SIZE:
            message = f"{param}: token id {token_id} is outside the vocabulary of {VOCAB_SIZE}"
            _refuse(f"{message} tokens", param)


def _refuse(message: str, param: str) -> Never:
    raise failed(ErrorCode.INVALID_VALUE, message, param)
