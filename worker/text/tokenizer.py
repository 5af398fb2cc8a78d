"""Converts chats and prompts to token ids."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from shared.context_length import PARAMS
from shared.errors import JobFailed, invalid_value
from shared.protocol.images import text_of
from shared.protocol.jobs import Endpoint, Job, Prompt, PromptEnd, SamplingParams
from shared.protocol.tools import ToolForm
from shared.reasoning_form import ReasoningForm
from worker.text.detokenizer import TextStream, TokenBytes
from worker.text.interface import EncodedPrompt, ImageReader, text_stream
from worker.text.prompt_style import BASE_STYLE, PromptStyle
from worker.text.reasoning_format import is_open
from worker.text.templates.chat_template import TEMPLATE_ERRORS, render_chat
from worker.text.templates.sandbox import AdapterTemplates, TemplateChat
from worker.text.tenant_turns import TenantTurns

USUAL_ROLES = ("system", "user", "assistant", "tool")
MAX_REASON_CHARS = 500
"""Maximum number of characters that clients see of a template's error.

Errors of transformers can contain the whole prompt."""


MAX_IMAGE_PROMPTS = 2
"""Maximum number of prompts, of different tenants, whose images are decoded at the same time."""


class Tokenizer:
    """Tokenizes jobs with a Hugging Face tokenizer. Thread-safe."""

    def __init__(
        self,
        hf_tokenizer: Any,
        *,
        vocab_size: int,
        reasoning: ReasoningForm | None = None,
        images: ImageReader | None = None,
    ) -> None:
        """Wrap a Hugging Face tokenizer.

        `vocab_size` is the number of rows of the model's embedding. Token ids in jobs must be
        smaller than this number. Without `images`, prompts with images are refused.
        """
        self._hf = hf_tokenizer
        self._images = images
        self._vocab_size = vocab_size
        self._reasoning = reasoning
        self._token_bytes = TokenBytes(hf_tokenizer)
        self._templates = AdapterTemplates()
        self._image_turns = TenantTurns(MAX_IMAGE_PROMPTS, refuses=False)
        self._image_threads = ThreadPoolExecutor(MAX_IMAGE_PROMPTS, thread_name_prefix="images")

    async def render(self, job: Job, style: PromptStyle) -> str | None:
        """See `PromptTokenizer.render`.

        Also raises JobFailed if the adapter's template doesn't show tools in the form that the
        job's tools have.
        """
        chat = self._adapters_chat(job, style)
        if chat is None:
            return None
        rendered = await self._templates.render(job.tenant, chat)
        if rendered.error:
            raise _rejected(rendered.error, job.messages or ())
        return rendered.text

    def encode(
        self, job: Job, style: PromptStyle = BASE_STYLE, text: str | None = None
    ) -> list[EncodedPrompt]:
        """See `PromptTokenizer.encode`."""
        self._check_sampling(job.sampling)
        if job.endpoint is Endpoint.CHAT:
            return [self._encode_chat(job, style, text)]
        limit = job.sampling.truncate_prompt_tokens
        encoded = []
        for i, prompt in enumerate(job.prompts):
            param = PARAMS[job.endpoint]
            ids = self.encode_prompt(prompt, f"{param}[{i}]" if len(job.prompts) > 1 else param)
            if limit is not None and len(ids) > limit:
                prompt = tuple(ids := ids[-limit:])
            encoded.append(EncodedPrompt(ids, self._echo(prompt) if job.echo else ""))
        return encoded

    async def question_text(self, job: Job, style: PromptStyle) -> str | None:
        """See `PromptTokenizer.question_text`."""
        text = await self.render(job, style)
        if text is None:
            if not self._hf.chat_template:
                return None
            text = self._rendered(job)
        opening, form = self._reasoning_of(job, style, text)
        return f"{text.rstrip()}\n\n{form.closing}\n\n" if form and opening else text

    def encode_prompt(self, prompt: Prompt, param: str = "prompt") -> list[int]:
        """See `PromptTokenizer.encode_prompt`."""
        if isinstance(prompt, str):
            return self._encode(prompt, param, add_special_tokens=True)
        for i, token_id in enumerate(prompt):
            self._check_id(token_id, f"{param}[{i}]")
        return _not_empty(list(prompt), param)

    async def encode_images(
        self, job: Job, style: PromptStyle = BASE_STYLE, text: str | None = None
    ) -> list[EncodedPrompt]:
        """See `PromptTokenizer.encode_images`."""
        async with self._image_turns.turn(job.tenant) as turn:
            start_s = time.monotonic()
            loop = asyncio.get_running_loop()
            try:
                return await loop.run_in_executor(
                    self._image_threads, self.encode, job, style, text
                )
            finally:
                turn.cpu_s = time.monotonic() - start_s

    def next_tokens(self, text: str, words: Sequence[str]) -> tuple[int, ...]:
        """See `PromptTokenizer.next_tokens`. After plain text, a space precedes each word.

        If the space is a token of its own, words follow the text without a space.
        """
        added = tuple(self._hf.get_added_vocab())
        is_plain = not text[-1:].isspace() and not text.endswith(added)
        spaced = self._next_tokens(text, [f" {word}" for word in words]) if is_plain else ()
        return spaced if len(set(spaced)) == len(words) else self._next_tokens(text, words)

    def _next_tokens(self, text: str, words: Sequence[str]) -> tuple[int, ...]:
        encode = partial(self.encode_text, add_special_tokens=False)
        before, found = encode(text), []
        for word in words:
            ids = encode(text + word)
            is_continued = ids[: len(before)] == before and len(ids) > len(before)
            found.append(ids[len(before)] if is_continued else encode(word)[0])
        return tuple(found)

    def encode_text(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Return the tokens of a text. The text may be empty."""
        # With `verbose`, it would warn about long texts, which `choices_of` rejects.
        encoding = self._hf(text, add_special_tokens=add_special_tokens, verbose=False)
        return list(encoding["input_ids"])

    def decode(self, ids: Sequence[int]) -> str:
        """See `PromptTokenizer.decode`."""
        for i, token_id in enumerate(ids):
            self._check_id(token_id, f"tokens[{i}]")
        text: str = self._hf.decode(list(ids), clean_up_tokenization_spaces=False)
        return text

    def token_names(self, ids: Sequence[int]) -> list[str]:
        """Return the vocabulary's name of each token. Ids without a token have an empty name."""
        return [name or "" for name in self._hf.convert_ids_to_tokens(list(ids))]

    def describe(self) -> dict[str, Any]:
        """Return the special tokens and the chat template, named as in transformers."""
        special = {name: str(token) for name, token in self._hf.special_tokens_map.items()}
        return {
            "tokenizer_class": type(self._hf).__name__,
            "vocab_size": len(self._hf),
            **dict.fromkeys(("bos_token", "eos_token", "unk_token", "pad_token")),
            **special,
            "chat_template": self._hf.chat_template,
        }

    def encode_words(self, words: Sequence[str]) -> tuple[tuple[int, ...], ...]:
        """Return the tokens of each word, both at the start of a text and after a space.

        The tokens after a space are left out if the word and the space don't form one word. This is
        so if their number differs from that at the start of a text, or if both start with the same
        token. vLLM does the same.
        """
        encode = partial(self.encode_text, add_special_tokens=False)
        found: list[tuple[int, ...]] = []
        for word in (each.lstrip() for each in words):
            alone, spaced = (tuple(encode(text)) for text in (word, f" {word}"))
            found.append(alone)
            if len(spaced) == len(alone) and spaced[0] != alone[0]:
                found.append(spaced)
        return tuple(found)

    def stream(self, job: Job, prompt: EncodedPrompt) -> TextStream:
        """Return an empty text stream for one choice of a job's `prompt`."""
        return text_stream(job, prompt, self._token_bytes)

    def _adapters_chat(self, job: Job, style: PromptStyle) -> TemplateChat | None:
        """Return the job's chat if the adapter's template must render it.

        Return None if the base model's template renders the chat, or if the job isn't a chat.
        """
        is_generic = _is_generic(job)
        template = style.template(has_tools=job.tools is not None and not is_generic)
        if job.endpoint is not Endpoint.CHAT or template is None:
            return None
        if job.tools and not is_generic and style.tool_form is not job.tools.form:
            raise invalid_value(
                "this adapter's chat template doesn't teach the base model's form of tool calls; "
                "send the request without tools",
                "tools",
            )
        base_tokens = self._hf.special_tokens_map
        if (
            template == self._hf.chat_template
            and style.special_tokens.items() <= base_tokens.items()
        ):
            return None
        return TemplateChat(
            template=template,
            messages=self._messages(job, template),
            base_tokens=base_tokens,
            special_tokens=style.special_tokens,
            variables=job.template_kwargs or {},
            tools=job.tools.tools if job.tools else None,
            is_generic=is_generic,
            prompt_end=job.prompt_end,
        )

    def _rendered(self, job: Job) -> str:
        """Return the chat of a job, rendered with the base model's chat template."""
        if not self._hf.chat_template:
            raise invalid_value("this model has no chat template; use /v1/completions")
        tools = job.tools.tools if job.tools else None
        try:
            return render_chat(
                self._hf,
                self._messages(job),
                tools=tools,
                variables=job.template_kwargs or {},
                prompt_end=job.prompt_end,
                is_generic=_is_generic(job),
            )
        except TEMPLATE_ERRORS as error:
            raise _rejected(str(error), job.messages or ()) from None

    def _messages(self, job: Job, template: str | None = None) -> list[dict[str, Any]]:
        """Return the job's messages in the form that `template` reads.

        The default is the base model's template.
        """
        messages = job.messages or ()
        if self._images is None:
            return _joined(messages)
        tools = job.tools.tools if job.tools and not _is_generic(job) else None
        return self._images.messages(messages, template or self._hf.get_chat_template(tools=tools))

    def _encode_chat(self, job: Job, style: PromptStyle, text: str | None) -> EncodedPrompt:
        """Tokenize a chat. `text` is the rendered chat. If it is None, render the chat here."""
        text = self._rendered(job) if text is None else text
        ids = self._encode(text, "messages", add_special_tokens=False)
        ids = ids[-(job.sampling.truncate_prompt_tokens or 0) :]  # 0 keeps all tokens
        images = None
        if self._images and job.images:
            ids, images = self._images.encode(ids, job.images)
        return EncodedPrompt(ids, *self._reasoning_of(job, style, text), images)

    def _reasoning_of(
        self, job: Job, style: PromptStyle, text: str
    ) -> tuple[str, ReasoningForm | None]:
        """Return the fields `echo` and `reasoning` of the `EncodedPrompt` with this `text`."""
        form = style.reasoning or (None if style.templates else self._reasoning)
        if form is None or job.prompt_end is PromptEnd.NOTHING:
            return "", None
        is_continued, messages = job.prompt_end is PromptEnd.MESSAGE, job.messages or ()
        continued = text_of(messages[-1]["content"]) if is_continued else ""
        if is_open(form, text, continued):
            return form.opening, form
        is_past = bool(continued) or text.rstrip().endswith(form.closing)
        return "", None if is_past else form

    def _echo(self, prompt: Prompt) -> str:
        if isinstance(prompt, str):
            return prompt
        stream = TextStream(self._token_bytes, (), is_text_start=True)
        return stream.replay(prompt) + stream.close()

    def _check_sampling(self, sampling: SamplingParams) -> None:
        for token_id, _ in sampling.logit_bias:
            self._check_id(token_id, f"logit_bias[{token_id}]")
        for name in ("stop_token_ids", "allowed_token_ids", "logprob_token_ids"):
            for i, token_id in enumerate(getattr(sampling, name)):
                self._check_id(token_id, f"{name}[{i}]")

    def _check_id(self, token_id: int, param: str) -> None:
        if not 0 <= token_id < self._vocab_size:
            reason = f"token id {token_id} is outside the vocabulary of {self._vocab_size} tokens"
            raise invalid_value(f"{param}: {reason}", param)

    def _encode(self, text: str, param: str, *, add_special_tokens: bool) -> list[int]:
        return _not_empty(self.encode_text(text, add_special_tokens=add_special_tokens), param)


def _is_generic(job: Job) -> bool:
    """Return whether the messages must describe the job's tools."""
    return job.tools is not None and job.tools.form is ToolForm.GENERIC


def _rejected(error: str, messages: Sequence[Mapping[str, Any]]) -> JobFailed:
    reason = error[:MAX_REASON_CHARS] + _unusual_role(messages)
    return invalid_value(f"the model's chat template rejects the messages: {reason}", "messages")


def _joined(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [_with_joined_text(i, message) for i, message in enumerate(messages)]


def _unusual_role(messages: Sequence[Mapping[str, Any]]) -> str:
    """Return a hint for an error message if a message's role is unusual, or an empty text.

    Few chat templates know unusual roles.
    """
    unusual = {message["role"] for message in messages} - set(USUAL_ROLES)
    if not unusual:
        return ""
    return f"; the role {min(unusual)!r} is unusual, most templates know {', '.join(USUAL_ROLES)}"


def _with_joined_text(index: int, message: Mapping[str, Any]) -> dict[str, Any]:
    """Return the message with its text parts joined, since most templates don't accept parts."""
    content = message.get("content")
    if not isinstance(content, list):
        return dict(message)
    if any(part.get("type") != "text" for part in content):
        raise invalid_value(
            f"messages[{index}].content: only parts of type text are supported",
            f"messages[{index}].content",
        )
    return {**message, "content": "\n".join(part["text"] for part in content)}


def _not_empty(ids: list[int], param: str) -> list[int]:
    if not ids:
        raise invalid_value(f"{param} is empty; send at least one token", param)
    return ids
