"""Messages and prompts to token ids."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError

from shared.errors import ErrorCode, JobError, JobFailed
from shared.protocol.jobs import Endpoint, Job, Prompt
from shared.protocol.tools import ToolUse
from worker.text.detokenizer import TextStream, TokenBytes
from worker.text.prompt_style import OF_BASE, Style

TEMPLATE_ERRORS = (
    *(TemplateError, TypeError, ValueError, LookupError, AttributeError),
    *(ArithmeticError, RecursionError),
)
"""What a chat template raises over messages that it wasn't written for, or by itself."""


@dataclass(frozen=True, slots=True)
class EncodedPrompt:
    """A prompt as the model reads it."""

    ids: list[int]
    echo: str
    """What of it is shown in front of each answer; empty unless the job asks for it."""


class Tokenizer:
    """A Hugging Face tokenizer as jobs need it. All methods may be called on any thread."""

    def __init__(self, hf_tokenizer: Any, *, vocab_size: int) -> None:
        """Wrap it; `vocab_size` counts the rows of the model's embedding."""
        self._hf = hf_tokenizer
        self._vocab_size = vocab_size
        self._token_bytes = TokenBytes(hf_tokenizer)

    def encode(self, job: Job, style: Style = OF_BASE) -> list[EncodedPrompt]:
        """The job's prompts in the style of its model; a chat is one.

        Takes seconds for megabytes of text.

        Raises:
            JobFailed: the client's input can't be used; names the field.
        """
        for token_id, _ in job.sampling.logit_bias:
            self._check_id(token_id, f"logit_bias[{token_id}]")
        if job.endpoint is Endpoint.CHAT:
            return [EncodedPrompt(self.encode_chat(job.messages or (), job.tools, style), "")]
        encoded = []
        for i, prompt in enumerate(job.prompts):
            ids = self.encode_prompt(prompt, f"prompt[{i}]" if len(job.prompts) > 1 else "prompt")
            encoded.append(EncodedPrompt(ids, self._echo(prompt) if job.echo else ""))
        return encoded

    def encode_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: ToolUse | None = None,
        style: Style = OF_BASE,
    ) -> list[int]:
        """The chat template's rendering of `messages` and tools, up to where the answer begins.

        Raises:
            JobFailed: the model has no chat template, or it refuses the messages.
        """
        template = style.template(has_tools=tools is not None)
        if template is None and not self._hf.chat_template:
            raise _invalid("this model has no chat template; use /v1/completions", None)
        if template is not None and tools and style.tool_form is not tools.form:
            raise _invalid(
                "this adapter's chat template doesn't offer tools as the base's", "tools"
            )
        plain = [_with_plain_content(i, message) for i, message in enumerate(messages)]
        try:  # transformers renders in jinja's sandbox
            text = self._hf.apply_chat_template(
                plain,
                tools=list(tools.tools) if tools else None,
                chat_template=template,
                tokenize=False,
                add_generation_prompt=True,
                **style.special_tokens,
            )
        except TEMPLATE_ERRORS as error:
            message = f"the model's chat template refuses the messages: {error}"
            raise _invalid(message, "messages") from None
        return self._encode(text, "messages", add_special_tokens=False)

    def encode_prompt(self, prompt: Prompt, param: str = "prompt") -> list[int]:
        """The prompt's tokens, with what the tokenizer puts before a text; ids stay as they are.

        Raises:
            JobFailed: it is empty, or an id isn't in the vocabulary; names it as `param`.
        """
        if isinstance(prompt, str):
            return self._encode(prompt, param, add_special_tokens=True)
        for i, token_id in enumerate(prompt):
            self._check_id(token_id, f"{param}[{i}]")
        return _not_empty(list(prompt), param)

    def stream(self, job: Job, prompt: EncodedPrompt) -> TextStream:
        """A fresh text for one choice of the job's `prompt`."""
        return TextStream(
            self._token_bytes,
            job.sampling.stop,
            opens=job.endpoint is Endpoint.CHAT,
            min_tokens=job.sampling.min_tokens,
            echo=prompt.echo,
        )

    def _echo(self, prompt: Prompt) -> str:
        if isinstance(prompt, str):
            return prompt
        stream = TextStream(self._token_bytes, (), opens=True)
        return stream.replay(prompt) + stream.close()

    def _check_id(self, token_id: int, param: str) -> None:
        if not 0 <= token_id < self._vocab_size:
            reason = f"token id {token_id} is outside of the vocabulary of {self._vocab_size}"
            raise _invalid(f"{param}: {reason}", param)

    def _encode(self, text: str, param: str, *, add_special_tokens: bool) -> list[int]:
        # Without `verbose` it warns about lengths, which are checked elsewhere.
        encoding = self._hf(text, add_special_tokens=add_special_tokens, verbose=False)
        return _not_empty(list(encoding["input_ids"]), param)


def _with_plain_content(index: int, message: Mapping[str, Any]) -> dict[str, Any]:
    """The message with its text parts joined: most templates take only a string."""
    content = message.get("content")
    if not isinstance(content, list):
        return dict(message)
    if any(part.get("type") != "text" for part in content):
        raise _invalid("only text content is served", f"messages[{index}].content")
    return {**message, "content": "\n".join(part["text"] for part in content)}


def _not_empty(ids: list[int], param: str) -> list[int]:
    if not ids:
        raise _invalid(f"{param} is empty: it must have at least one token", param)
    return ids


def _invalid(message: str, param: str | None) -> JobFailed:
    return JobFailed(JobError(code=ErrorCode.INVALID_VALUE, message=message, param=param))
