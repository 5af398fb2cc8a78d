"""Interfaces between the text of jobs and the tokens of an engine."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from shared.protocol.jobs import Job
from worker.text.detokenizer import TextStream
from worker.text.prompt_style import PromptStyle

if TYPE_CHECKING:  # it imports llguidance
    from worker.engine.grammar import Grammar


@dataclass(frozen=True, slots=True)
class EncodedPrompt:
    """A tokenized prompt."""

    ids: list[int]
    echo: str
    """Prompt text that is put before each answer; empty unless the job asks for an echo."""


class PromptTokenizer(Protocol):
    """Converts the prompts of jobs to token ids, and token ids to text. Thread-safe."""

    def encode(self, job: Job, style: PromptStyle) -> Sequence[EncodedPrompt]:
        """Tokenize the prompts of a job. A chat counts as one prompt.

        This takes seconds for megabytes of text.

        Raises:
            JobFailed: the client's input is invalid; the error names the field.
        """
        ...

    def stream(self, job: Job, prompt: EncodedPrompt) -> TextStream:
        """Return an empty text stream for one choice of a job's `prompt`."""
        ...


class Grammars(Protocol):
    """Grammars of the jobs' answers. All calls must come from one event loop."""

    async def for_job(self, job: Job) -> "Grammar | None":
        """Return the grammar of the job's answers, or None if any text is allowed.

        Raises:
            JobFailed: the grammar can't be enforced; the error names the field.
        """
        ...
