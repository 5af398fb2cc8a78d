"""Conversations with one or several models."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ops.chat.client import Client, Message, ServerError
from shared.errors import LorikeetError


class CommandError(LorikeetError):
    """A chat command is unknown, or names an unknown model."""


@dataclass(slots=True)
class Talk:
    """Conversation with one model."""

    model: str
    history: list[Message] = field(default_factory=list)
    answer: str = ""
    """Text of the latest answer received so far."""
    error: str = ""
    """Reason why there is no latest answer; empty if there is one."""

    async def ask(self, client: Client, prompt: str, show: Callable[[str], None]) -> None:
        """Send `prompt`, and call `show` with each piece of the answer; store errors in `error`.

        If the call is cancelled, the history keeps the received part of the answer. A prompt
        without any answer is removed from the history.
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

    def switch_to(self, models: Sequence[str]) -> None:
        """Select other models.

        A model that is already selected keeps its history; others copy that of the first one.

        Raises:
            CommandError: the server has no such model.
        """
        for model in models:
            if model not in self.names:
                raise CommandError(f"there is no model {model}, only {', '.join(self.names)}")
        known = {talk.model: talk.history for talk in self.talks}
        first = self.talks[0].history if self.talks else []
        self.talks = [Talk(model, [*known.get(model, first)]) for model in models]

    def reset(self) -> None:
        """Clear the history of all models."""
        for talk in self.talks:
            talk.history.clear()
