"""Interfaces between the text of jobs and the tokens of an engine."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from shared.protocol.jobs import Endpoint, Job, Prompt
from shared.reasoning_form import ReasoningForm
from worker.text.detokenizer import TextStream, TokenTable
from worker.text.prompt_style import PromptStyle

if TYPE_CHECKING:  # it imports llguidance
    from worker.engine.grammar import Grammar


@dataclass(frozen=True, slots=True)
class Scored:
    """Tokens whose log-probabilities make up the score of a prompt."""

    labels: tuple[int, ...] = ()
    """Ids of the tokens after the prompt whose log-probabilities are the score.

    If there are no labels, tokens of the prompt itself are scored."""
    num_unscored: int = 0
    """Number of tokens at the start of the prompt that aren't scored."""


@dataclass(frozen=True, slots=True)
class EncodedPrompt:
    """A tokenized prompt."""

    ids: list[int]
    echo: str
    """Text with which each answer's text starts.

    It is the prompt if the job asks for an echo, or the opening marker if the prompt ends with the
    start of the reasoning. Empty otherwise."""
    reasoning: ReasoningForm | None = None
    """Form of the reasoning with which answers may begin; None if answers have no reasoning."""
    images: object | None = None
    """The prompt's images in the engine's form; None if there are none."""
    scored: Scored | None = None
    """Tokens from which the prompt's score is computed; None if the job doesn't ask for scores."""

    @property
    def is_reasoning(self) -> bool:
        """Whether the prompt begins the reasoning, so that answers start inside it."""
        return self.reasoning is not None and self.echo == self.reasoning.opening


class PromptTokenizer(Protocol):
    """Converts the prompts of jobs to token ids, and token ids to text. Thread-safe."""

    async def render(self, job: Job, style: PromptStyle) -> str | None:
        """Render the chat of a job with the template of an adapter, in another process.

        Return None if `encode` must render the chat, or if the job isn't a chat.

        Raises:
            JobFailed: the template rejects the messages or takes too much time.
        """

    def encode(
        self, job: Job, style: PromptStyle, text: str | None = None
    ) -> Sequence[EncodedPrompt]:
        """Tokenize the prompts of a job. A chat is one prompt.

        This takes seconds for megabytes of text. `text` is the result of `render`.

        Raises:
            JobFailed: the client's input is invalid; the error names the field.
        """

    async def encode_images(
        self, job: Job, style: PromptStyle, text: str | None = None
    ) -> Sequence[EncodedPrompt]:
        """Do the same as `encode` for a job with images.

        The work is done on a thread, during a turn of the job's tenant. All calls must come from
        one event loop.
        """

    async def question_text(self, job: Job, style: PromptStyle) -> str | None:
        """Return the chat of a job as text that ends where the content of its answer begins.

        If the chat template begins a reasoning at the end of the prompt, the text also closes this
        reasoning. Return None if there is no chat template.

        Raises:
            JobFailed: the template rejects the messages or takes too much time.
        """

    def encode_prompt(self, prompt: Prompt, param: str) -> list[int]:
        """Return the token ids of a prompt. A text also gets the tokenizer's special tokens.

        Raises:
            JobFailed: the prompt is empty, or an id is outside the vocabulary. The error names
                `param` as the invalid field.
        """

    def encode_text(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Return the tokens of a text. The text may be empty."""

    def next_tokens(self, text: str, words: Sequence[str]) -> tuple[int, ...]:
        """Return the first token that each word has when it directly follows `text`."""

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of tokens, including special ones. Raises JobFailed for an unknown id."""

    def token_names(self, ids: Sequence[int]) -> list[str]:
        """Return the vocabulary's name of each token. Ids without a token have an empty name."""

    def describe(self) -> dict[str, Any]:
        """Return the special tokens and the chat template, named as in transformers."""

    def encode_words(self, words: Sequence[str]) -> tuple[tuple[int, ...], ...]:
        """Return the tokens of each word, both at the start of a text and after a space."""

    def stream(self, job: Job, prompt: EncodedPrompt) -> TextStream:
        """Return an empty text stream for one choice of a job's `prompt`."""


class ImageReader(Protocol):
    """Puts images into the prompts of a model. Thread-safe."""

    def messages(
        self, messages: Sequence[Mapping[str, Any]], template: str
    ) -> list[dict[str, Any]]:
        """Return a job's messages in the form that the chat template reads."""

    def encode(self, ids: list[int], images: Sequence[str]) -> tuple[list[int], object]:
        """Return a prompt's tokens, including its images' tokens, and the images in engine form.

        `images` are files in base64, in the order of their marks in the prompt.

        Raises:
            JobFailed: the images can't be read.
        """


def text_stream(job: Job, prompt: EncodedPrompt, table: TokenTable) -> TextStream:
    """Return an empty text stream for one choice of a job's `prompt`."""
    return TextStream(
        table,
        job.sampling.stop,
        is_text_start=job.endpoint is Endpoint.CHAT,
        min_tokens=job.sampling.min_tokens,
        includes_stop=job.sampling.includes_stop,
        keeps_special_tokens=job.sampling.keeps_special_tokens,
        tokens_as_ids=job.sampling.tokens_as_ids,
        echo=prompt.echo,
    )


class Grammars(Protocol):
    """Grammars of the jobs' answers. All calls must come from one event loop."""

    async def for_job(self, job: Job, prompt: EncodedPrompt) -> "Grammar | None":
        """Return the grammar of the answers to `prompt`, or None if any text is allowed.

        Raises:
            JobFailed: the grammar can't be enforced; the error names the field.
        """
