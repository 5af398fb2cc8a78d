"""Converts chats and prompts to token ids."""

from collections.abc import Mapping, Sequence
from typing import Any

from shared.errors import ErrorCode, JobError, JobFailed
from shared.protocol.jobs import Endpoint, Job, Prompt
from shared.protocol.tools import ToolUse
from worker.text.chat_template import TEMPLATE_ERRORS, render_chat
from worker.text.detokenizer import TextStream, TokenBytes
from worker.text.interface import EncodedPrompt
from worker.text.prompt_style import BASE_STYLE, PromptStyle


class Tokenizer:
    """Tokenizes jobs with a Hugging Face tokenizer. Thread-safe."""

    def __init__(self, hf_tokenizer: Any, *, vocab_size: int) -> None:
        """Wrap a tokenizer. `vocab_size` is the number of rows in the model's embedding."""
        self._hf = hf_tokenizer
        self._vocab_size = vocab_size
        self._token_bytes = TokenBytes(hf_tokenizer)

    def encode(self, job: Job, style: PromptStyle = BASE_STYLE) -> list[EncodedPrompt]:
        """Tokenize the prompts of a job. A chat counts as one prompt.

        This takes seconds for megabytes of text.

        Raises:
            JobFailed: the client's input is invalid; the error names the field.
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
        style: PromptStyle = BASE_STYLE,
    ) -> list[int]:
        """Render a chat with the chat template, and tokenize the text.

        The text ends with the header of the answer.

        Raises:
            JobFailed: the model has no chat template, the template rejects the messages, or the
                chat has tools but the adapter's template doesn't show the base model's form of tool
                calls.
        """
        template = style.template(has_tools=tools is not None)
        if template is None and not self._hf.chat_template:
            raise _invalid("this model has no chat template; use /v1/completions", None)
        if template is not None and tools and style.tool_form is not tools.form:
            raise _invalid(
                "this adapter's chat template doesn't teach the base model's form of tool calls; "
                "send the request without tools",
                "tools",
            )
        joined = [_with_joined_text(i, message) for i, message in enumerate(messages)]
        try:
            text = render_chat(
                self._hf,
                joined,
                tools=tools.tools if tools else None,
                template=template,
                special_tokens=style.special_tokens,
            )
        except TEMPLATE_ERRORS as error:
            message = f"the model's chat template rejects the messages: {error}"
            raise _invalid(message, "messages") from None
        return self._encode(text, "messages", add_special_tokens=False)

    def encode_prompt(self, prompt: Prompt, param: str = "prompt") -> list[int]:
        """Return the token ids of a prompt.

        A text is tokenized, and the tokenizer's special tokens are added. If the prompt consists of
        ids, they are returned unchanged.

        Raises:
            JobFailed: the prompt is empty, or an id is outside the vocabulary. The error names
                `param` as the invalid field.
        """
        if isinstance(prompt, str):
            return self._encode(prompt, param, add_special_tokens=True)
        for i, token_id in enumerate(prompt):
            self._check_id(token_id, f"{param}[{i}]")
        return _not_empty(list(prompt), param)

    def stream(self, job: Job, prompt: EncodedPrompt) -> TextStream:
        """Return an empty text stream for one choice of a job's `prompt`."""
        return TextStream(
            self._token_bytes,
            job.sampling.stop,
            is_text_start=job.endpoint is Endpoint.CHAT,
            min_tokens=job.sampling.min_tokens,
            echo=prompt.echo,
        )

    def _echo(self, prompt: Prompt) -> str:
        if isinstance(prompt, str):
            return prompt
        stream = TextStream(self._token_bytes, (), is_text_start=True)
        return stream.replay(prompt) + stream.close()

    def _check_id(self, token_id: int, param: str) -> None:
        if not 0 <= token_id < self._vocab_size:
            reason = f"token id {token_id} is outside the vocabulary of {self._vocab_size} tokens"
            raise _invalid(f"{param}: {reason}", param)

    def _encode(self, text: str, param: str, *, add_special_tokens: bool) -> list[int]:
        # With `verbose`, it would warn about long texts, which `choices_of` rejects.
        encoding = self._hf(text, add_special_tokens=add_special_tokens, verbose=False)
        return _not_empty(list(encoding["input_ids"]), param)


def _with_joined_text(index: int, message: Mapping[str, Any]) -> dict[str, Any]:
    """Return the message with its text parts joined, since most templates don't accept parts."""
    content = message.get("content")
    if not isinstance(content, list):
        return dict(message)
    if any(part.get("type") != "text" for part in content):
        raise _invalid(
            f"messages[{index}].content: only parts of type text are supported",
            f"messages[{index}].content",
        )
    return {**message, "content": "\n".join(part["text"] for part in content)}


def _not_empty(ids: list[int], param: str) -> list[int]:
    if not ids:
        raise _invalid(f"{param} is empty; send at least one token", param)
    return ids


def _invalid(message: str, param: str | None) -> JobFailed:
    return JobFailed(JobError(code=ErrorCode.INVALID_VALUE, message=message, param=param))
