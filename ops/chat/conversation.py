"""Conversations with one or several models."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ops.chat.client import Client, Message
from ops.server_client import ServerError
from shared.errors import LorikeetError


class CommandError(LorikeetError):
    """A chat command is unknown, or it names an unknown model."""


@dataclass(slots=True)
class Talk:
    """Conversation with one model."""

    model: str
    history: list[Message] = field(default_factory=list)
    answer: str = ""
    """Text of the latest answer received so far."""
    error: str = ""
    """Message of the error that ended the latest request, or empty if it succeeded."""

    async def ask(self, client: Client, prompt: str, show: Callable[[str], None]) -> None:
        """Send `prompt`, and call `show` with each piece of the answer.

        If the call is cancelled, the history keeps the part of the answer received so far. If the
        server fails, the error's message is stored in `error`. The prompt is removed from the
        history after an error, or if no part of an answer was received.
        """
        self.answer = self.error = ""
        self.history.append({"role": "user", "content": prompt})
        try:
            async for piece in client.answer(self.model, self.history):
                self.answer += piece
                show(piece)
        except ServerError as error:
            self.error = str(error)
        finally:
            if self.answer and not self.error:
                self.history.append({"role": "assistant", "content": self.answer})
            else:
                self.history.pop()


class Conversation:
    """Conversations with the selected models, which all receive the same prompts."""

    def __init__(self, names: Sequence[str], models: Sequence[str]) -> None:
        self.names = names
        self.talks: list[Talk] = []
        self.switch_to(models)

    @property
    def models(self) -> list[str]:
        """The names of the selected models."""
        return [talk.model for talk in self.talks]

    def switch_to(self, models: Sequence[str]) -> None:
        """Replace the selected models by `models`.

        A model that is already selected keeps its history. A newly selected model gets a copy of
        the history of the model that was first in the old selection.

        Raises:
            CommandError: the server doesn't serve one of `models`, or one is given twice.
        """
        for model in models:
            if model not in self.names:
                raise CommandError(f"there is no model {model}, only {', '.join(self.names)}")
        if len(set(models)) < len(models):
            raise CommandError(f"{', '.join(models)}: give each model once")
        known = {talk.model: talk.history for talk in self.talks}
        first = self.talks[0].history if self.talks else []
        self.talks = [Talk(model, [*known.get(model, first)]) for model in models]

    def reset(self) -> None:
        """Clear the history of all models."""
        for talk in self.talks:
            talk.history.clear()
